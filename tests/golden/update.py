"""Golden values for five whole updates of Soft Actor-Critic, from PyTorch's autograd and Adam in float64.

Writes update-obs3-act1.safetensors and update-obs17-act6.safetensors beside this script, byte for byte the same each
time (on one kind of CPU; another may differ in the last bits). Made with Python 3.11.7, torch 2.15.0, numpy 2.4.6,
safetensors 0.8.0:

    pip install torch==2.15.0 numpy==2.4.6 safetensors==0.8.0
    python tests/golden/update.py

Tensors, all float64 (O observations, A actions, K = 0..4 the update, 32 rows a batch); weights are [out, in]:
    init.P                             before the first update, for each parameter P:
                                         policy.{trunk.0,trunk.1,mean,log_std}.{weight,bias}, log_alpha [1],
                                         {q1,q2,target_q1,target_q2}.{0,1,2}.{weight,bias}
    batch.K.{observation,next_observation} [32, O]    batch.K.action [32, A]    batch.K.{reward,discount} [32]
    noise.K.{next,current} [32, A]     standard normal draws, for the target's and the policy loss's action
    target.K [32]                      the critics' regression target y
    log_prob.K [32]                    log pi of the policy loss's action
    loss.K.{critic,policy,temperature} [1]
    grad.K.P                           the gradient that Adam got, for each P but the targets
    after.1.P, after.5.P               after the first and after the fifth update
    log_std_bounds [2]
The hyper-parameters are in the metadata.
"""
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from torch.distributions import Normal
from torch.nn.functional import mse_loss, relu, softplus

HIDDEN, BATCH, UPDATES = (16, 12), 32, 5
GAMMA, TAU, BETAS, EPS = 0.99, 0.005, (0.9, 0.999), 1e-8
LR_POLICY, LR_CRITIC, LR_ALPHA = 3e-4, 1e-3, 2e-3
LOG_ALPHA, LOG_STD_BOUNDS = -0.7, (-0.35, 0.25)
SEED = {(3, 1): 77, (17, 6): 2}  # chosen: they pass every assertion below, so that both sides of each branch are taken

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


class Agent(nn.Module):
    def __init__(self, O, A):
        super().__init__()
        h1, h2 = HIDDEN
        critic = lambda: nn.ModuleList([nn.Linear(O + A, h1), nn.Linear(h1, h2), nn.Linear(h2, 1)])
        self.policy = nn.ModuleDict({
            "trunk": nn.ModuleList([nn.Linear(O, h1), nn.Linear(h1, h2)]),
            "mean": nn.Linear(h2, A),
            "log_std": nn.Linear(h2, A),
        })
        self.q1, self.q2, self.target_q1, self.target_q2 = critic(), critic(), critic(), critic()
        self.log_alpha = nn.Parameter(torch.tensor([LOG_ALPHA]))
        with torch.no_grad():
            for name, p in self.named_parameters():
                if name != "log_alpha":
                    p *= 1.5
            for q, target in self.critics():
                target.copy_(q + 0.1 * torch.randn_like(q))

    def critics(self):
        """Pairs of a critic's parameter and its target's."""
        pairs = (self.q1, self.target_q1), (self.q2, self.target_q2)
        return [pair for q, target in pairs for pair in zip(q.parameters(), target.parameters())]


margin = math.inf  # the least distance from a kink (of ReLU, clamp or min): rounding below it changes no branch


def away(x):
    global margin
    margin = min(margin, x.detach().abs().min().item())
    return x


def act(policy, s, noise):
    """The squashed action and its log-probability."""
    x = s
    for layer in policy["trunk"]:
        x = relu(away(layer(x)))
    raw = policy["log_std"](x)
    low, high = LOG_STD_BOUNDS
    below, above = (away(raw - low) < 0).double().mean(), (away(raw - high) > 0).double().mean()
    assert below > 0 and above > 0 and 0.1 < below + above < 0.9, (below, above)
    mean, std = policy["mean"](x), raw.clamp(low, high).exp()
    u = mean + std * noise
    log_prob = Normal(mean, std).log_prob(u) - 2 * (math.log(2) - u - softplus(-2 * u))
    return u.tanh(), log_prob.sum(-1)


def value(q, s, a):
    x = torch.cat([s, a], -1)
    x = relu(away(q[1](relu(away(q[0](x))))))
    return q[2](x).squeeze(-1)


def least(q1, q2, s, a):
    v1, v2 = value(q1, s, a), value(q2, s, a)
    assert 3 <= (away(v1 - v2) < 0).sum() <= BATCH - 3, "one critic is the least on nearly every row"
    return torch.min(v1, v2)


def golden(O, A):
    torch.manual_seed(SEED[O, A])
    agent, target_entropy = Agent(O, A), -float(A)
    adam = lambda parameters, lr: torch.optim.Adam(parameters, lr, BETAS, EPS, foreach=False, fused=False)
    critic_adam = adam([*agent.q1.parameters(), *agent.q2.parameters()], LR_CRITIC)
    policy_adam = adam(agent.policy.parameters(), LR_POLICY)
    alpha_adam = adam([agent.log_alpha], LR_ALPHA)

    out = {"log_std_bounds": torch.tensor(LOG_STD_BOUNDS)}

    def store(prefix, tensors):
        out.update({f"{prefix}.{name}": t.detach().clone() for name, t in tensors.items()})

    def descend(k, optimiser, loss, *prefixes):
        optimiser.zero_grad()
        loss.backward()
        store(f"grad.{k}", {n: p.grad for n, p in agent.named_parameters() if n.startswith(prefixes)})
        optimiser.step()

    store("init", dict(agent.named_parameters()))
    for k in range(UPDATES):
        s, a, r = torch.randn(BATCH, O), torch.tanh(torch.randn(BATCH, A)), torch.randn(BATCH)
        s_next = s + 0.5 * torch.randn(BATCH, O)
        terminated = torch.rand(BATCH) < 0.2
        assert 0 < terminated.sum() < BATCH / 2
        discount = GAMMA * (1 - terminated.double())
        noise_next, noise_current = torch.randn(BATCH, A), torch.randn(BATCH, A)
        alpha = agent.log_alpha.detach().exp()

        with torch.no_grad():  # 1. the target
            a_next, log_prob_next = act(agent.policy, s_next, noise_next)
            y = r + discount * (least(agent.target_q1, agent.target_q2, s_next, a_next) - alpha * log_prob_next)

        # 2. the critics
        critic_loss = mse_loss(value(agent.q1, s, a), y) + mse_loss(value(agent.q2, s, a), y)
        descend(k, critic_adam, critic_loss, "q1.", "q2.")

        # 3. the policy, against the critics just updated
        a_current, log_prob = act(agent.policy, s, noise_current)
        policy_loss = (alpha * log_prob - least(agent.q1, agent.q2, s, a_current)).mean()
        descend(k, policy_adam, policy_loss, "policy.")

        # 4. the temperature, with log_prob from before the policy's step
        temperature_loss = -agent.log_alpha * (log_prob.detach() + target_entropy).mean()
        descend(k, alpha_adam, temperature_loss, "log_alpha")

        with torch.no_grad():  # 5. the target critics
            for q, target in agent.critics():
                target += TAU * (q - target)

        store(f"batch.{k}", {"observation": s, "action": a, "reward": r, "discount": discount, "next_observation": s_next})
        store(f"noise.{k}", {"next": noise_next, "current": noise_current})
        store("target", {f"{k}": y})
        store("log_prob", {f"{k}": log_prob})
        losses = {"critic": critic_loss, "policy": policy_loss, "temperature": temperature_loss}
        store(f"loss.{k}", {name: loss.view(1) for name, loss in losses.items()})
        if k + 1 in (1, UPDATES):
            store(f"after.{k + 1}", dict(agent.named_parameters()))

    metadata = {
        "observation_dim": O, "action_dim": A, "hidden": "16,12", "batch_size": BATCH, "updates": UPDATES,
        "gamma": GAMMA, "tau": TAU, "lr_policy": LR_POLICY, "lr_critic": LR_CRITIC, "lr_alpha": LR_ALPHA,
        "adam_beta1": BETAS[0], "adam_beta2": BETAS[1], "adam_eps": EPS,
        "log_alpha": LOG_ALPHA, "target_entropy": target_entropy,
        "log_std_min": LOG_STD_BOUNDS[0], "log_std_max": LOG_STD_BOUNDS[1],
    }
    return out, {name: str(x) for name, x in metadata.items()}


def write(path, tensors, metadata):
    """A safetensors file with its metadata sorted: the library's own order differs from run to run."""
    blob = save(tensors, metadata)
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob[end:])


if __name__ == "__main__":
    for O, A in SEED:
        margin = math.inf
        tensors, metadata = golden(O, A)
        assert all(t.dtype == torch.float64 and t.isfinite().all() for t in tensors.values())
        assert margin > 1e-5
        # A gradient whose terms cancel out has no digits left to compare in float32.
        assert all(t.norm() > 5e-3 for name, t in tensors.items() if name.startswith("grad.0."))
        write(Path(__file__).with_name(f"update-obs{O}-act{A}.safetensors"), tensors, metadata)
        print(f"obs {O}, act {A}: {len(tensors)} tensors, never nearer than {margin:.1e} to a kink")
