"""Environments for tests/gym.rs."""
import ctypes
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import gymnasium
import numpy
from gymnasium.spaces import Box, Dict, Discrete

class Echo(gymnasium.Env):
    """Gives back its action and its seed, and prints all the while."""
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, offset=0, name="", note=None):
        print("made", name)
        self.render_mode, self.offset, self.note = render_mode, offset, note
        self.action_space = Box(numpy.array([[-1, 0, 0.1]]), numpy.array([[1, 10, 0.3]]), dtype=numpy.float64)
        self.observation_space = Box(-numpy.inf, numpy.inf, (2, 2), numpy.float64)

    def reset(self, seed=None, options=None):
        os.write(1, b"begun\n")
        self.kept, self.steps = [], 0
        return numpy.array([[0, 0], [self.offset, seed / 2**31]], float), {}

    def step(self, action):
        print("at", self.steps)
        assert self.action_space.contains(action), action
        # An action is the environment's own to keep.
        self.kept.append(action)
        self.steps += 1
        assert len({id(kept) for kept in self.kept}) == self.steps
        first = self.kept[0]
        observation = [[action[0, 0], action[0, 1]], [action[0, 2], first[0, 1]]]
        return observation, numpy.float32(self.steps), numpy.bool_(self.steps == 3), self.steps in (2, 3), {}

    def render(self):
        return numpy.array([[[255, 0, 0], [0, 0, self.steps]]], numpy.uint8)

class Spaces(gymnasium.Env):
    """Nothing but spaces."""
    KINDS = {
        "fine": Box(-1, 1, (1,)), "discrete": Discrete(3), "dictionary": Dict(a=Box(-1, 1, (1,))),
        "infinite": Box(-numpy.inf, numpy.inf, (1,)), "huge": Box(-1e300, 1e300, (1,), numpy.float64),
        "whole": Box(0, 9, (1,), numpy.int32), "scalar": Box(-1, 1, ()), "point": Box(1, 1, (1,)),
        "narrow": Box(numpy.array([0, 1.0]), numpy.array([1, 1.0 + 1e-9]), dtype=numpy.float64),
    }

    def __init__(self, actions="fine", observations="fine"):
        self.action_space, self.observation_space = self.KINDS[actions], self.KINDS[observations]

class Failing(gymnasium.Env):
    """Does what the environment variable FAIL says, at the step that it says."""
    action_space, observation_space = Box(-1, 1, (1,)), Box(-1, 1, (2,))

    def __init__(self):
        self.how, at = os.environ.get("FAIL", "never 0").split()
        self.left = int(at)
        with open(os.environ["PROCESSES"], "a") as file:
            print(os.getpid(), file=file)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        if self.how == "reset" and self.left <= 0:
            raise RuntimeError("no more\nof this")
        return self.np_random.uniform(-1, 1, 2).astype("f4"), {}

    def step(self, action):
        self.left -= 1
        self.steps += 1
        if self.left == 0 and self.how not in ("never", "reset"):
            return getattr(self, self.how)()
        return self.np_random.uniform(-1, 1, 2).astype("f4"), 1.0, False, self.steps >= 20, {}

    def throw(self):
        raise ValueError("a problem\nin two lines")

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self):
        if os.fork() == 0:
            time.sleep(8)
            os._exit(0)
        self.kill()

    def fork(self):
        if os.fork() == 0:
            raise ValueError("a problem of another")
        os.wait()
        self.throw()

    def exit(self):
        sys.exit(3)

    def hang(self):
        open(os.environ["PROCESSES"] + ".hangs", "w").close()
        while True:
            time.sleep(1)

    def hang_in_c(self):
        """Holds Python's lock, so that none of its threads can do anything."""
        open(os.environ["PROCESSES"] + ".hangs", "w").close()
        ctypes.PyDLL(None).sleep(1000)

    def babble(self):
        # What answers is not to be found by a module's name.
        frame = sys._getframe()
        while "channel" not in frame.f_globals:
            frame = frame.f_back
        frame.f_globals["channel"].send(b"?" * 1000)

    def shape(self):
        return numpy.zeros(1), 0.0, False, False, {}

    def nan(self):
        return numpy.array([0, numpy.nan]), 0.0, False, False, {}

class Parent(Failing):
    """Starts other processes, in every way, and leaves them."""
    def __init__(self):
        super().__init__()
        spawn, fork = multiprocessing.get_context("spawn"), multiprocessing.get_context("fork")
        children = [subprocess.Popen(["sleep", "1000"])]
        for context, daemon in ((fork, False), (fork, True), (spawn, False)):
            children.append(context.Process(target=time.sleep, args=(1000,), daemon=daemon))
            children[-1].start()
        reader, writer = os.pipe()
        if os.fork() == 0:
            # The child of a child, which nobody is the parent of.
            child = os.fork()
            if child == 0:
                time.sleep(1000)
            os.write(writer, str(child).encode())
            os._exit(0)
        os.wait()
        pids = [child.pid for child in children] + [int(os.read(reader, 20))]
        with open(os.environ["PROCESSES"], "a") as file:
            print(*pids, sep="\n", file=file)

class Closing(gymnasium.Env):
    """Takes its time to close."""
    action_space, observation_space = Box(-1, 1, (1,)), Box(-1, 1, (1,))

    def __init__(self, seconds):
        self.seconds = seconds

    def reset(self, seed=None, options=None):
        return numpy.zeros(1), {}

    def close(self):
        time.sleep(self.seconds)
        open("closed", "w").close()

class Answers(gymnasium.Env):
    """Ends an episode with the answer that it was given, as Python reads it."""
    action_space, observation_space = Box(-1, 1, (1,)), Box(-1, 1, (2,))

    def __init__(self, observation="numpy.zeros(2)", reward="0.0", terminated="False", truncated="True", info="{}"):
        self.answer = observation, reward, terminated, truncated, info

    def reset(self, seed=None, options=None):
        return numpy.array([random.random(), numpy.random.random()]), {}

    def step(self, action):
        return tuple(eval(part) for part in self.answer)

def arguments(**given):
    """Refuses to be made, and says what it has been given, and what a script sees of itself."""
    own = sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__"))
    raise ValueError(f"given {given}, argv {sys.argv}, main {own}, last path {sys.path[-1] == os.getcwd()}")

class Normed(gymnasium.wrappers.NormalizeObservation):
    """Learns statistics of its own."""
    def __init__(self):
        super().__init__(Answers())

class Wide(gymnasium.Env):
    """Has very many actions."""
    action_space = observation_space = Box(-1, 1, (9000,))

    def reset(self, seed=None, options=None):
        return numpy.zeros(9000), {}

    def step(self, action):
        return action, 0.0, False, True, {}


class Large(gymnasium.Env):
    """Says and shows more than fits into one piece of what leads to the program."""
    metadata = {"render_modes": ["rgb_array"]}
    action_space, observation_space = Box(-1, 1, (1,)), Box(-1, 1, (150, 200))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def see(self, value):
        return (numpy.arange(30000).reshape(150, 200) + value).astype("f4") / 65536

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.see(0), {}

    def step(self, action):
        self.steps += 1
        return self.see(self.steps), float(action[0]), False, self.steps >= 7, {}

    def render(self):
        return (numpy.arange(3 * 257 * 301) + self.steps).reshape(257, 301, 3).astype("u1")

class Exact(gymnasium.Wrapper):
    """A pendulum whose start is one of f32, and comes after each observation."""
    def __init__(self):
        super().__init__(gymnasium.make("Pendulum-v1"))
        self.observation_space = Box(-numpy.inf, numpy.inf, (5,))

    def reset(self, seed=None, options=None):
        self.env.reset(seed=seed)
        self.start = self.env.unwrapped.state.astype("f4")
        self.env.unwrapped.state = self.start.astype(float)
        return numpy.concatenate([self.env.unwrapped._get_obs(), self.start]), {}

    def step(self, action):
        observation, *rest = self.env.step(action)
        return numpy.concatenate([observation, self.start]), *rest

class Short(gymnasium.Env):
    """Three steps with a reward of 1."""
    action_space, observation_space = Box(-1, 1, (1,)), Box(-1, 1, (2,))

    def reset(self, seed=None, options=None):
        self.steps = 0
        return numpy.zeros(2, "f4"), {}

    def step(self, action):
        self.steps += 1
        return numpy.zeros(2, "f4"), 1.0, False, self.steps == 3, {}

class Skip(gymnasium.Wrapper):
    """Takes the last two steps as one, and says what it likes."""
    def __init__(self, env, told=None):
        super().__init__(env)
        self.told = told

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.env.unwrapped.steps == 2:
            observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, 10 * reward, terminated, truncated, self.told or info

def Counted(told=None, counts=True):
    if isinstance(told, str):
        told = {"episode": eval(told, {"numpy": numpy})}
    return Skip(gymnasium.wrappers.RecordEpisodeStatistics(Short()) if counts else Short(), told)

class Changing(Short):
    """What an environment becomes whose maker edits it between two sessions: its bounds and sizes are variables."""
    def __init__(self):
        high, actions, observations = (float(os.environ.get(name, default)) for name, default in zip("HAO", (1, 1, 2)))
        self.action_space = Box(-high, high, (int(actions),))
        self.size = int(observations)
        self.observation_space = Box(-1, 1, (self.size,))

    def reset(self, seed=None, options=None):
        return numpy.zeros(self.size, "f4"), super().reset(seed, options)[1]

    def step(self, action):
        return numpy.zeros(self.size, "f4"), *super().step(action)[1:]

def refuse(**arguments):
    raise ValueError(f"made with {arguments}")

class Slow(gymnasium.Env):
    """Episodes of 15 random steps, of 5 ms each."""
    action_space, observation_space = Box(-1, 1, (1,)), Box(-9, 9, (2,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.sum = 0, 0.0
        return self.np_random.uniform(-1, 1, 2).astype("f4"), {}

    def step(self, action):
        time.sleep(0.005)
        self.steps += 1
        self.sum += float(action[0])
        random = self.np_random.uniform(-1, 1)
        return numpy.array([random, self.sum], "f4"), random * self.sum, False, self.steps >= 15, {}

class Unseeded(Slow):
    """The same, whatever the seed."""
    def reset(self, seed=None, options=None):
        return super().reset(seed=int.from_bytes(os.urandom(4), "little"))

class Endless(gymnasium.Env):
    """Episodes without an end, but for the first steps of a process."""
    action_space, observation_space = Box(-1, 1, (1,)), Box(-1, 1, (1,))
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, first=0, started=None):
        self.render_mode, self.first, self.started, self.steps = render_mode, first, started, 0

    def reset(self, seed=None, options=None):
        return numpy.zeros(1, "f4"), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 50 and self.started:
            open(self.started, "w").close()
        return numpy.zeros(1, "f4"), 1.0, False, self.steps == self.first, {}

    def render(self):
        return numpy.zeros((1, 1, 3), "u1")

for name in (
    Echo, Spaces, Failing, Parent, Closing, Answers, arguments, Normed, Wide, Large, Exact, Counted, Changing, Slow, Unseeded,
    Endless, refuse,
):
    gymnasium.register(f"{name.__name__}-v0", name)
