"""The other end of src/env/gym.rs: makes an environment by Gymnasium, and answers requests about it until there are no more.

It comes through the standard input, and finds in ARGUMENTS: the number of a file that is open as long as the program lives,
or -; the seconds that a step or close() may take; 1 if pictures are wanted, or 0; the identifier; and KEY=VALUE for each
argument. The formats of requests and answers, in little-endian, are described there.
"""
import ast
import importlib.util
import json
import mmap
import os
import random
import select
import signal
import stat
import struct
import sys
import threading
import time
import traceback

MAGIC = b"sac-gym2"
STATE, FAILURE, PICTURE = range(3)
STEP, RESET, DRAW = range(3)
GREETING = struct.Struct("<8sII")
REQUEST = struct.Struct("<IIQ")
ANSWER = struct.Struct("<IId")
STATISTICS = struct.Struct("<dQ")
LENGTH = struct.Struct("<I")
NUMBER = struct.Struct("<d")
# The most numbers of an info that are reported, and the most characters of their names.
MOST_NUMBERS, LONGEST_NAME = 32, 64
# What Gymnasium and its wrappers put into an info for themselves.
NOT_OF_THE_TASK = {"episode", "final_info", "final_observation", "final_obs", "terminal_observation", "TimeLimit.truncated"}

# Who stops all processes of a service stops this one as well, and then the program still has steps to take and a run to save.
# These are handlers, because what is ignored would be ignored by the programs that an environment starts as well.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
for number in SIGNALS:
    signal.signal(number, lambda *_: None)


def guard(life):
    """Leaves a process behind that ends the whole group once the program has ended, and returns whether there is one.

    A thread could not do so while the environment hangs in C code that holds Python's lock.
    """
    try:
        if not stat.S_ISFIFO(os.fstat(int(life)).st_mode):
            return False
    except (OSError, ValueError):
        # There is none, or a script has led elsewhere.
        return False
    life = int(life)
    child = os.fork()
    if child:
        os.close(life)
        os.waitpid(child, 0)
        return True
    try:
        # A child of its own would be one that an environment may wait for.
        if os.fork():
            return os._exit(0)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for name in os.listdir("/dev/fd"):
            if int(name) != life:
                try:
                    os.close(int(name))
                except OSError:
                    pass
        os.read(life, 1)
        os.killpg(0, signal.SIGKILL)
    finally:
        os._exit(1)


LIFE, TIMEOUT, *ARGUMENTS = ARGUMENTS
TIMEOUT = float(TIMEOUT)
is_guarded = guard(LIFE)


class Pipes:
    """What leads to the program and back."""

    def __init__(self):
        self.requests = open(os.dup(0), "rb", buffering=0)
        self.answers = open(os.dup(1), "wb", buffering=0)
        # Where it can be seen that the program has ended.
        self.watched = self.answers

    def close(self):
        self.requests.close()
        self.answers.close()

    def receive(self, buffer):
        """Waits until there is enough to fill the buffer, and says whether it has come to that."""
        rest = memoryview(buffer)
        while rest:
            try:
                count = self.requests.readinto(rest)
            except ConnectionError:
                return False
            if count == 0:
                return False
            rest = rest[count:]
        return True

    def send(self, data):
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.answers.write(rest):]
            except OSError:
                os._exit(1)


class Shared:
    """The same in memory that both see; shared.rs describes it, and counts in bytes what are words here."""

    THIS_SLEEPS, OTHER_SLEEPS = 520, 512
    REQUESTS, ANSWERS = 528, 8744
    WRITTEN, TAKEN, LENGTH, PIECE = 0, 8, 16, 24
    CAPACITY = 65536
    # For how many seconds the program's count is looked at before this process sleeps, and after how many looks the core is
    # offered to others.
    EAGER, LOOKS = 200e-6, range(50)
    # For how many milliseconds this process sleeps at first, and at most.
    NAP, LONGEST_NAP = 10, 1000

    def __init__(self):
        memory = memoryview(mmap.mmap(1, 0))
        self.words = memory.cast("Q")
        self.request, self.answer = (memory[8 * start:][:self.CAPACITY] for start in
                                     (self.REQUESTS + self.PIECE, self.ANSWERS + self.PIECE))
        self.bell = self.watched = os.dup(0)
        os.set_blocking(self.bell, False)
        poll = select.poll()
        poll.register(self.bell, select.POLLIN)
        self.poll = poll.poll
        self.written = self.taken = self.read = 0
        self.is_eager = False

    def close(self):
        os.close(self.bell)
        # What is not there cannot be written to.
        self.words = self.request = self.answer = None

    def count(self, position, count):
        """Counts a piece that has been written or taken, and wakes the program if it sleeps until then."""
        self.words[position] = count
        if self.words[self.OTHER_SLEEPS] == 8 * position:
            try:
                os.write(self.bell, b"\0")
            except BlockingIOError:
                # There are bytes that it has not read yet.
                pass
            except ConnectionError:
                os._exit(1)

    def wait(self, position, count):
        """Waits until a count is no longer that, and says whether it has come to it: it has not if there are no more requests."""
        words = self.words
        if words[position] != count:
            return True
        began = time.perf_counter()
        while self.is_eager and time.perf_counter() - began <= self.EAGER:
            for _ in self.LOOKS:
                if words[position] != count:
                    return True
            os.sched_yield()
        words[self.THIS_SLEEPS] = 8 * position
        nap = self.NAP
        while words[position] == count:
            if self.poll(nap):
                try:
                    if not os.read(self.bell, 64):
                        return False
                except ConnectionError:
                    return False
            nap = min(2 * nap, self.LONGEST_NAP)
        words[self.THIS_SLEEPS] = 0
        self.is_eager = time.perf_counter() - began <= self.EAGER
        return True

    def receive(self, buffer):
        rest = memoryview(buffer)
        while rest:
            if not self.wait(self.REQUESTS + self.WRITTEN, self.taken):
                return False
            length = self.words[self.REQUESTS + self.LENGTH]
            piece = self.request[self.read:length][:len(rest)]
            rest[:len(piece)] = piece
            rest = rest[len(piece):]
            self.read += len(piece)
            if self.read == length:
                self.read = 0
                self.taken += 1
                self.count(self.REQUESTS + self.TAKEN, self.taken)
        return True

    def send(self, data):
        rest = memoryview(data)
        while rest:
            if self.written and not self.wait(self.ANSWERS + self.TAKEN, self.written - 1):
                os._exit(1)
            length = min(len(rest), self.CAPACITY)
            self.answer[:length] = rest[:length]
            rest = rest[length:]
            self.words[self.ANSWERS + self.LENGTH] = length
            self.written += 1
            self.count(self.ANSWERS + self.WRITTEN, self.written)


channel = Shared() if stat.S_ISREG(os.fstat(1).st_mode) else Pipes()
# What an environment prints must not get between the answers, so it goes where errors go, line by line.
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
sys.stdout.reconfigure(line_buffering=True)


def after_fork():
    """What an environment forks has no part in this, or it would keep the program from seeing this process end."""
    channel.close()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)


def end_with_the_program():
    """Waits until nobody is left to read answers, and then ends this process, whatever the environment is doing."""
    reader = select.poll()
    reader.register(channel.watched, 0)
    reader.poll()
    os._exit(1)


def in_one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def to_bytes(problem):
    return problem.encode("utf-8", "replace")[:4000]


class Unusable(Exception):
    """An environment, or a Python, that is of no use here, for a reason that a line can say."""


def value(argument):
    """The value of an argument KEY=VALUE: as JSON or as Python has it, or else the text itself."""
    key, text = argument.split("=", 1)
    for read in (json.loads, ast.literal_eval):
        try:
            return key, read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    text = text.strip()
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return key, float(text)
    if text[:1] in tuple("([{\"'") or text.lower() in ("true", "false", "none", "null"):
        quoted = json.dumps(text)
        raise Unusable(f"--env-arg {key}={text} is no value of JSON or Python; write it as in True, None, 0.5, [1, 2] or "
                       f"(1, 2), or as {quoted} if it is a text")
    return key, text


def complains(gymnasium, error, arguments):
    """Whether it is about what the environment is to be made with, and does not come from the environment's own code."""
    if any(f"unexpected keyword argument '{key}'" in str(error) for key in arguments):
        return True
    folder = os.path.dirname(gymnasium.__file__)

    def is_gymnasium(file):
        parts = os.path.relpath(file, folder).split(os.sep)
        # Its own environments lie in folders inside envs.
        return file.startswith("<") or parts[0] != os.pardir and (parts[0] != "envs" or len(parts) == 2)

    return all(is_gymnasium(frame.filename) for frame in traceback.extract_tb(error.__traceback__))


def is_installed(module):
    """Whether Python finds it without the working directory."""
    try:
        return importlib.util.find_spec(module.split(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def make(identifier, draws, arguments):
    """The environment, and the shapes and bounds of what goes in and out."""
    try:
        import gymnasium
        import numpy
    except ModuleNotFoundError as error:
        raise Unusable(
            f"the Python {sys.executable} has no module {error.name}; install it there (pip install gymnasium), "
            "or name another Python with --python"
        ) from error
    if ":" in identifier and not is_installed(identifier.split(":")[0]):
        sys.path.append(os.getcwd())
    given = dict(map(value, arguments))
    arguments = {**given, "render_mode": "rgb_array"} if draws else given
    try:
        env = gymnasium.make(identifier, **arguments)
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound) as error:
        raise Unusable(
            f"{in_one_line(error)} An ID is one that gymnasium.pprint_registry() prints, as in gym:Pendulum-v1; say "
            "gym:MODULE:ID to import what registers it first"
        ) from error
    except gymnasium.error.Error as error:
        raise Unusable(in_one_line(error)) from error
    except ModuleNotFoundError as error:
        if ":" not in identifier or error.name not in (None, identifier.split(":")[0].split(".")[0]):
            raise
        raise Unusable(
            f"{in_one_line(error)} Install it for {sys.executable}, or put the folder that holds it into PYTHONPATH"
        ) from error
    except Exception as error:
        # What the making of an environment has raised, Gymnasium raises anew.
        cause = error.__context__ or error
        if draws and "render_mode" not in given and "keyword argument 'render_mode'" in str(cause):
            raise Unusable("its class takes no render_mode, so it cannot be filmed; give it one, and \"rgb_array\" in "
                           "metadata[\"render_modes\"]") from error
        if not complains(gymnasium, cause, given):
            raise
        advice = "; change what --env-arg says it is made with" if given else ""
        raise Unusable(in_one_line(cause) + advice) from error

    def one_line(space):
        return " ".join(str(space).split())

    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, gymnasium.spaces.Box) or not numpy.issubdtype(actions.dtype, numpy.floating):
        raise Unusable(
            f"its actions are {one_line(actions)}, and only a Box of floats will do; "
            "choose a variant with continuous actions, or wrap it in gymnasium.wrappers.TransformAction"
        )
    # Bounds beyond the range of float32 become infinite by this; that is what is asked below.
    with numpy.errstate(over="ignore"):
        low, high = actions.low.astype("<f4"), actions.high.astype("<f4")
    if not (numpy.isfinite(low).all() and numpy.isfinite(high).all()):
        raise Unusable(
            f"its actions are {one_line(actions)}, without finite bounds; "
            "give it some, by wrapping it in gymnasium.wrappers.TransformAction with a bounded action_space"
        )
    alike = numpy.argwhere((low == high) & (actions.low < actions.high))
    if len(alike):
        first = tuple(alike[0])
        raise Unusable(
            f"its action ranges from {actions.low[first]!s} to {actions.high[first]!s} in dimension {list(map(int, first))}, which "
            "is one number in float32; wrap it in gymnasium.wrappers.RescaleAction"
        )
    if not isinstance(observations, gymnasium.spaces.Box):
        raise Unusable(
            f"its observations are {one_line(observations)}, and only a Box will do; "
            "wrap it in gymnasium.wrappers.FlattenObservation"
        )
    if not observations.shape or 0 in observations.shape + actions.shape or not actions.shape:
        raise Unusable(f"its observations have the shape {observations.shape} and its actions {actions.shape}; "
                       "give both at least one dimension, none of them empty")
    return env, numpy, low, high


def layers(env):
    """The wrappers of an environment from the outermost to the innermost, and then itself."""
    while env is not None:
        yield env
        env = vars(env).get("env") if hasattr(env, "__dict__") else None


def notes(env, identifier):
    """What a user should know before training, a sentence each."""
    LEARNED = {"obs_rms": "--normalize-observations", "return_rms": "--reward-scale"}
    for layer in layers(env):
        for name, instead in LEARNED.items():
            if name in getattr(layer, "__dict__", ()):
                yield (f"gym:{identifier} is wrapped in {type(layer).__name__}, whose statistics start again in evaluations and "
                       f"after a resume; remove it, and use {instead} instead")
    has_limit = any(type(layer).__name__ == "TimeLimit" for layer in layers(env))
    if not has_limit and getattr(env.spec, "max_episode_steps", None) is None:
        yield (f"gym:{identifier} has no time limit that Gymnasium knows of; if an episode may last forever, set one: "
               "--env-arg max_episode_steps=N")


def recorder(env):
    """The wrapper within an environment that counts the rewards and steps of an episode, or None."""
    return next((layer for layer in layers(env) if type(layer).__name__ == "RecordEpisodeStatistics"), None)


def scalar(value, numpy, kinds="biuf"):
    """A number or a boolean, or the only one of an array; None if it is neither."""
    try:
        array = numpy.asarray(value)
        return array.item() if array.size == 1 and array.dtype.kind in kinds else None
    except Exception:
        # What the conversion of a foreign type may raise is as little a number.
        return None


def number(quantity, value, numpy, kinds="biuf"):
    """A number or a boolean, or the only one of an array."""
    only = scalar(value, numpy, kinds)
    if only is not None:
        return only
    wanted = "true or false" if kinds == "bi" else "a number"
    raise ValueError(f"its {quantity} is {shown(value)} of the type {type(value).__name__}, not {wanted}")


def shown(value):
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:97] + "..."


def numbers(info, numpy):
    """The numbers of an info by their names, as they are sent. Whatever else is in it is left out, and never a failure."""
    sent = []
    try:
        items = list(info.items()) if isinstance(info, dict) else []
    except Exception:
        items = []
    for key, told in items:
        # A long list is not converted only to see that it is no number.
        if not isinstance(key, str) or isinstance(told, (str, bytes, list, tuple, dict, set)):
            continue
        if not key or key.startswith("_") or key in NOT_OF_THE_TASK or len(sent) == MOST_NUMBERS:
            continue
        told = scalar(told, numpy)
        if told is not None and numpy.isfinite(told):
            name = key[:LONGEST_NAME].encode("utf-8", "replace")
            sent.append(LENGTH.pack(len(name)) + name + NUMBER.pack(float(told)))
    return b"".join(sent)


def of_episode(info, counts, numpy):
    """The return and the length of an episode, if the environment tells them, or counts them."""
    episode = info.get("episode") if isinstance(info, dict) else None
    if isinstance(episode, dict) and {"r", "l"} <= episode.keys():
        told = episode["r"], episode["l"]
    elif counts is not None:
        # A time limit around it ends episodes of which it does not know the end.
        told = counts.episode_returns, counts.episode_lengths
    else:
        return b""
    try:
        total, length = (numpy.asarray(number).item() for number in told)
        return STATISTICS.pack(float(total), int(length))
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise ValueError(f"the statistics of its episode are {told}, not a return and a length") from error


def serve(env, numpy):
    """Answers requests until there are no more."""
    actions, shape = env.action_space, env.observation_space.shape
    request = bytearray(REQUEST.size + 4 * int(numpy.prod(actions.shape)))
    answer = bytearray(ANSWER.size + 4 * int(numpy.prod(shape)))
    chosen = numpy.frombuffer(request, "<f4", offset=REQUEST.size).reshape(actions.shape)
    seen = numpy.frombuffer(answer, "<f4", offset=ANSWER.size).reshape(shape)
    # In float64 a bound may be closer to zero than the float32 next to it.
    clips = actions.dtype != numpy.float32
    counts = recorder(env)
    while channel.receive(request):
        operation, _, seed = REQUEST.unpack_from(request)
        if operation == DRAW:
            pixels = env.render()
            if pixels is None:
                ANSWER.pack_into(answer, 0, PICTURE, 0, 0.0)
                channel.send(answer)
                continue
            pixels = numpy.asarray(pixels)
            if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != numpy.uint8:
                raise ValueError(f"its picture has the shape {pixels.shape} and the type {pixels.dtype}, "
                                 "not (height, width, 3) and uint8")
            height, width, _ = pixels.shape
            ANSWER.pack_into(answer, 0, PICTURE, 8 + pixels.size, 0.0)
            channel.send(answer + struct.pack("<II", width, height) + pixels.tobytes())
            continue
        if operation == RESET:
            # An episode depends on nothing but its seed, whatever random numbers the environment uses.
            random.seed(seed)
            numpy.random.seed(seed)
            observation, _ = env.reset(seed=seed)
            reward, ends, rest = 0.0, 0, b""
        else:
            # A copy, because the environment may keep it.
            action = chosen.astype(actions.dtype)
            if clips:
                numpy.clip(action, actions.low, actions.high, out=action)
            observation, reward, terminated, truncated, info = env.step(action)
            if not isinstance(reward, float):
                reward = float(number("reward", reward, numpy))
            if not (isinstance(terminated, bool) and isinstance(truncated, bool)):
                terminated = bool(number("terminated", terminated, numpy, "bi"))
                truncated = bool(number("truncated", truncated, numpy, "bi"))
            ends, rest = terminated | truncated << 1, b""
            if ends:
                statistics, told = of_episode(info, counts, numpy), numbers(info, numpy)
                ends |= bool(statistics) << 2 | bool(told) << 3
                rest = statistics + (LENGTH.pack(len(told)) + told if told else b"")
        observed = numpy.asarray(observation)
        if observed.dtype.kind not in "biuf":
            what = f"{shown(observation)} of the type {type(observation).__name__}"
            raise ValueError(f"its observation is {what}, not numbers of the shape {shape}")
        if observed.shape != shape:
            raise ValueError(f"its observation has the shape {observed.shape} instead of {shape}")
        seen[...] = observed
        ANSWER.pack_into(answer, 0, STATE, ends, reward)
        channel.send(answer + rest if rest else answer)


def end_in_time(identifier):
    """Lets the environment close for as long as a step may take, and says so where that is long."""
    def watch():
        patience = min(2.0, TIMEOUT / 2)
        time.sleep(patience)
        say(f"gym:{identifier} is closing; waiting for it up to {TIMEOUT:g} s (--env-timeout)")
        time.sleep(TIMEOUT - patience)
        say(f"gym:{identifier} has not closed after {TIMEOUT:g} s (--env-timeout); it is ended")
        os._exit(1)

    def say(line):
        os.write(2, f"{line}\n".encode("utf-8", "replace"))

    threading.Thread(target=watch, daemon=True).start()


def end_children():
    """Ends the processes that an environment has left running, for which Python would wait forever."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()


def main(draws, identifier, *arguments):
    if not is_guarded and hasattr(select, "poll"):
        threading.Thread(target=end_with_the_program, daemon=True).start()
    try:
        env, numpy, low, high = make(identifier, draws == "1", arguments)
    except Exception as error:
        if isinstance(error, Unusable):
            problem = to_bytes(str(error))
        else:
            traceback.print_exc()
            problem = to_bytes(in_one_line(error))
        channel.send(GREETING.pack(MAGIC, 0, len(problem)) + problem)
        end_in_time(identifier)
        end_children()
        return
    size = int(numpy.prod(env.observation_space.shape))
    noted = to_bytes("\n".join(" ".join(note.split()) for note in notes(env, identifier)))
    bounds = low.tobytes() + high.tobytes()
    channel.send(GREETING.pack(MAGIC, size, low.size) + bounds + LENGTH.pack(len(noted)) + noted)
    try:
        serve(env, numpy)
    except Exception as error:
        traceback.print_exc()
        problem = to_bytes(in_one_line(error))
        channel.send(ANSWER.pack(FAILURE, len(problem), 0.0) + bytes(4 * size) + problem)
    end_in_time(identifier)
    env.close()
    end_children()


main(*ARGUMENTS)
