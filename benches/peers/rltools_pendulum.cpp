// Trains RLtools' SAC on its Pendulum-v1 as its zoo does, but for 10 000 steps and with neither evaluation nor log, and times it.
//
// usage: rltools_pendulum [seed=0]
// Prints one line: rltools pendulum steps=... hidden=... batch=... updates=... return=... seconds=..., of which seconds is the
// training loop alone, and return the mean of ten episodes near the end. benches/against_rltools.py builds and runs it. Needs
// RLtools, with its include and src/rl/zoo on the include path, and OpenBLAS.

#define RL_TOOLS_NN_DISABLE_GENERIC_FORWARD_BACKWARD // so that a layer which would not go through BLAS does not compile

#include <rl_tools/operations/cpu_mux.h>
#include <rl_tools/nn/optimizers/adam/instance/operations_generic.h>
#include <rl_tools/nn/operations_cpu_mux.h>
#include <rl_tools/nn/layers/sample_and_squash/operations_generic.h>
#include <rl_tools/nn_models/mlp/operations_generic.h>
#include <rl_tools/nn_models/random_uniform/operations_generic.h>
#include <rl_tools/nn_models/sequential/operations_generic.h>
#include <rl_tools/nn/optimizers/adam/operations_generic.h>

#include <pendulum-v1/sac.h>
#include <rl_tools/rl/algorithms/sac/loop/core/operations_generic.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace rlt = rl_tools;

using Device = rlt::devices::DEVICE_FACTORY<>;
using Index = Device::index_t;
using Rng = Device::SPEC::RANDOM::ENGINE<>;
using Types = rlt::numeric_types::Policy<float>;
using Zoo = rlt::rl::zoo::pendulum_v1::sac::FACTORY<Device, Types, Index, Rng, true>;
using Environment = Zoo::LOOP_CORE_CONFIG::ENVIRONMENT;

struct Parameters : Zoo::LOOP_CORE_PARAMETERS {
    static constexpr Index STEP_LIMIT = 10'000;
    static constexpr Index REPLAY_BUFFER_CAP = STEP_LIMIT;
};
using Sac = Parameters::SAC_PARAMETERS;

// What the other side of the comparison is set to.
static_assert(Device::DEVICE_ID == rlt::devices::DeviceId::CPU_OPENBLAS);
static_assert(Sac::ACTOR_BATCH_SIZE == 100 && Sac::CRITIC_BATCH_SIZE == 100);
static_assert(Parameters::ACTOR_HIDDEN_DIM == 64 && Parameters::CRITIC_HIDDEN_DIM == 64);
static_assert(Parameters::ACTOR_NUM_LAYERS == 3 && Parameters::CRITIC_NUM_LAYERS == 3); // two hidden layers and the last one
static_assert(Parameters::N_ENVIRONMENTS == 1 && Parameters::N_WARMUP_STEPS == 100);
static_assert(Sac::GAMMA == 0.99f && Sac::CRITIC_POLYAK == 0.995f && Sac::ADAPTIVE_ALPHA && Sac::ALPHA == 0.5f);

using Config = rlt::rl::algorithms::sac::loop::core::Config<
    Types, Index, Rng, Environment, Parameters, rlt::rl::algorithms::sac::loop::core::ConfigApproximatorsMLP>;

int main(int count, char** arguments) {
    Device device;
    auto state = std::make_unique<Config::State<Config>>();
    rlt::malloc(device);
    rlt::init(device);
    rlt::malloc(device, *state);
    rlt::init(device, *state, count > 1 ? std::strtoul(arguments[1], nullptr, 10) : 0);

    const auto start = std::chrono::steady_clock::now();
    while (!rlt::step(device, *state)) {
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;

    // Adam counts from one.
    const auto steps_of = [&](auto& optimizer) { return rlt::get(device, optimizer.age, 0) - 1; };
    const Index updates = steps_of(state->actor_critic.actor_optimizer);
    for (auto& optimizer : state->actor_critic.critic_optimizers) {
        if (steps_of(optimizer) != updates) {
            std::fprintf(stderr, "critics and actor took different numbers of steps\n");
            return 1;
        }
    }
    // An episode's return is written when the next one begins, so the last entry is yet empty.
    auto& episodes = rlt::get(state->off_policy_runner.episode_stats, 0, 0);
    double sum = 0;
    for (Index back = 2; back <= 11; back++) {
        sum += rlt::get(episodes.returns, episodes.next_episode_i - back, 0);
    }
    std::printf("rltools pendulum steps=%lu hidden=%lu batch=%lu updates=%lu return=%.1f seconds=%.3f\n",
        (unsigned long)state->step, (unsigned long)Parameters::ACTOR_HIDDEN_DIM, (unsigned long)Sac::ACTOR_BATCH_SIZE,
        (unsigned long)updates, sum / 10, elapsed.count());
}
