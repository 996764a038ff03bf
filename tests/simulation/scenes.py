"""What is planned for a run, by its kind: anything at all, and the moments in which one rule alone keeps the promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from tests.simulation.gates import BACKOFF_S, LINGER_S, REQUEST_TIMEOUT_S, Gate
from tests.simulation.metering import Worker
from tests.simulation.run import PAUSE_MAX_S, Run
from tests.simulation.world import DRIFT_MAX, Process

Kind = Literal["anything", "last moments", "late extension", "stopped", "steady", "scarce", "stalled", "old leader"]
Scene = Callable[[Run], float]
"""Plans a run, and says how long it is to be faulty."""

GATES: Final[Mapping[Kind, tuple[int, ...]]] = {"anything": (1, 2, 3), "scarce": (2, 3)}
GATES_USUALLY: Final = (2, 3)


def play(seed: int, kind: Kind | None = None, trace: list[str] | None = None) -> Run:
    """Raises Broken when an invariant does not hold. The same seed (and kind) is the same run."""
    kind = kind or kind_of(seed)
    run = Run(seed, GATES.get(kind, GATES_USUALLY), trace)
    run.play(SCENES[kind](run))
    return run


def kind_of(seed: int) -> Kind:
    """The kind of run that a seed is, unless another is asked for."""
    return KINDS[seed % len(KINDS)]


# -- anything


def anything(run: Run) -> float:
    """Bursts of calls, and faults in the middle of them; long enough for leases to end, and for midnight to pass."""
    random, world = run.world.random, run.world
    run.set_limits(*random.choice([(1, 12), (1, 12), (30, 90)]))
    lasting_s = 40.0
    world.hazard = random.choice([0.0, 0.0, 0.001, 0.004])
    for _ in range(random.randint(4, 12)):
        world.after(random.uniform(0, lasting_s), lambda: _episode(run))
    if random.random() < 0.4:
        for _ in range(random.randint(1, 2)):
            world.after(random.uniform(0, lasting_s), run.change_limit)
    if random.random() < 0.25:
        for _ in range(random.randint(1, 5)):
            world.after(random.uniform(0, lasting_s), run.report)
    return lasting_s


def _episode(run: Run) -> None:
    """A burst of calls at one gate; perhaps something happens in its middle; perhaps calls go on elsewhere for a while."""
    random, world = run.world.random, run.world
    gate = random.choice(run.gates)
    run.calls_between(gate, 0, 0.05, random.randint(1, 8))
    if random.random() < 0.7:
        victim = random.choice([gate, gate, *run.gates, *run.workers])
        world.after(random.uniform(0, 0.06), lambda: _fault(run, victim))
    if random.random() < 0.5:
        lasting_s = random.choice([0.5, 3.0, 15.0])
        for _ in range(random.randint(1, 25)):
            world.after(random.uniform(0, lasting_s), lambda: run.call(random.choice(run.gates)))


def _fault(run: Run, victim: Process) -> None:
    random, world = run.world.random, run.world
    kind = random.random()
    if kind < 0.2:
        victim.crash()
    elif kind < 0.5:
        victim.pause(random.choice([random.uniform(0.01, 2.0), random.uniform(6.0, PAUSE_MAX_S)]))
    elif kind < 0.6:
        world.note("the network is down")
        world.down_until = world.now + random.uniform(0.1, 5.0)
    elif kind < 0.7:
        run.stall(random.uniform(0.1, 20.0))
    elif isinstance(victim, Worker):
        victim.cut_off(random.uniform(1.0, 16.0))
    elif isinstance(victim, Gate):
        if kind < 0.8:
            _cut(victim, random.uniform(1.0, 10.0))
        elif kind < 0.87:
            victim.committer.slow = (0.5, 2.1)
        elif kind < 0.93:
            victim.slow_reply = victim.slow_request = (0.05, 0.7)
        else:
            victim.stop()


def _cut(gate: Gate, seconds: float) -> None:
    gate.world.note(f"{gate.name} is cut from metering for {seconds:.1f} s")
    gate.cut_until = gate.world.now + seconds


# -- the worst that timers may do


def _worst_timers(run: Run) -> Gate:
    """A gate whose timer is slow; workers whose timers are fast, and that look often."""
    gate = run.gates[0]
    gate.drift = -DRIFT_MAX
    for worker in run.workers:
        worker.drift = DRIFT_MAX
        worker.look_s = 0.07
    return gate


def _others(run: Run, gate: Gate, first_s: float, last_s: float, count: int, quantity: int | None = None) -> None:
    """Calls at other gates, which get what the lease of `gate` leaves."""
    for other in run.gates:
        if other is not gate:
            run.calls_between(other, first_s, last_s, count, quantity)


ASKED_AGAIN_S: Final = REQUEST_TIMEOUT_S / (1 - DRIFT_MAX) + BACKOFF_S + LINGER_S
"""From one request that is lost to the next, at a gate whose timer is slow."""
ALIVE_S: Final = (1.6, 3.2, 4.8, 6.4, 7.8)
"""When a lease is used, so that it is not idle."""


BEFORE_THE_END_S: Final = (9.4, 9.6)
"""By the world's time, since it was asked for: when a lease is spent from for the last time, if the gate's timer is slow."""
LAST_REQUEST_S: Final = (9.35, 9.58)
"""When an extension is asked for so late that the lease is over before another could be."""
AFTER_THE_END_S: Final = (10.2, 10.65)
"""When metering has closed it, if its timer is fast, but a gate that kept no margin would still spend from it."""


def _spend_to_the_end(run: Run, gate: Gate, moment: tuple[float, float], *, hindered: bool) -> None:
    """From now on, metering does not hear the gate any more: it spends its lease until some moment after it was asked for;
    `hindered`: perhaps by a pause, or by records that take their time."""
    random, world, app = run.world.random, run.world, run.apps[0]
    _cut(gate, 14.0)
    left_s = gate.leased_s - world.now
    for alive_s in (*ALIVE_S, 9.0):
        world.after(max(0.0, left_s + alive_s), lambda: run.call(gate, 1, app))
    moment_s = left_s + random.uniform(*moment)
    run.calls_between(gate, moment_s, moment_s + 0.1, 5, 1, app)
    kind = random.random() if hindered else 1.0
    if kind < 0.3:
        world.after(moment_s, lambda: _call_and_pause(run, gate, random.uniform(0.3, 3.0)))
    elif kind < 0.9:
        slow = random.choice([(0.05, 0.3), (0.8, 1.95), (1.2, 1.95)])
        world.after(moment_s - 0.05, lambda: _slow_down(gate, slow))
    _others(run, gate, left_s + 9.8, left_s + 11.2, 20, 7)


def _call_and_pause(run: Run, gate: Gate, seconds: float) -> None:
    """Between spending and storing."""
    run.call(gate, 1, run.apps[0])
    gate.pause(seconds)


def _slow_down(gate: Gate, seconds: tuple[float, float]) -> None:
    gate.world.note(f"records of {gate.name} take {seconds} s to arrive")
    gate.committer.slow = seconds


def last_moments(run: Run) -> float:
    """A gate that metering does not hear spends its lease to the end, while the others wait for what it leaves."""
    gate, random = _worst_timers(run), run.world.random
    run.set_limits(70, 120)
    begin_s = random.choice([0.0, random.uniform(0, 3), random.uniform(22, 24)])
    run.calls_between(gate, begin_s, begin_s + 1.5, random.randint(20, 40), 1, run.apps[0])
    _others(run, gate, begin_s + 1.5, begin_s + 8, 5)
    moment = random.choice([(8.9, 9.6), BEFORE_THE_END_S, AFTER_THE_END_S])
    run.world.after(begin_s + 1.5, lambda: _spend_to_the_end(run, gate, moment, hindered=True))
    if random.random() < 0.15:
        run.world.after(begin_s + random.uniform(0, 10), lambda: run.stall(random.uniform(1, 10)))
    return begin_s + 18.0


def late_extension(run: Run) -> float:
    """A lease is extended by a request that takes so long that metering is about to find the lease over; or the answer takes its
    time, and the lease is then spent to its new end."""
    gate, random = _worst_timers(run), run.world.random
    if random.random() < 0.5:
        for worker in run.workers:
            worker.keeping_s = 1.0

        def late_request(moment_s: float) -> None:
            gate.slow_request = (0.7, 1.0)
            run.world.after(moment_s + 0.01, lambda: gate.pause(1.05))  # or it finds the lease over before the answer comes
            for later_s in (1.2, 2.7, 4.1):
                run.world.after(moment_s + later_s, lambda: run.call(gate, 1, run.apps[0]))

        return _extended(run, gate, LAST_REQUEST_S, late_request)

    def late_answer(moment_s: float) -> None:
        gate.slow_reply = (0.8, 1.05)
        run.world.after(moment_s + 1.1, lambda: _spend_to_the_end(run, gate, (10.15, 10.45), hindered=False))

    return _extended(run, gate, (5.7, 7.1), late_answer)


def stopped(run: Run) -> float:
    """A gate is stopped when it has asked for an extension; then it finds all at once, in any order: that its lease is over, the
    answer, that the answer is late, and calls."""
    gate, random = _worst_timers(run), run.world.random

    def stop(moment_s: float) -> None:
        run.world.after(moment_s + 0.006, lambda: gate.pause(random.uniform(3.0, 4.0)))
        run.calls_between(gate, moment_s + 1.0, moment_s + 2.9, 8, 1, run.apps[0])
        run.calls_between(gate, moment_s + 4.0, moment_s + 7.0, 30, 1, run.apps[0])

    return _extended(run, gate, LAST_REQUEST_S, stop)


def _extended(run: Run, gate: Gate, when: tuple[float, float], then: Callable[[float], None]) -> float:
    """A lease is used, and extended so long after it was asked for. `then` plans what else happens, from then on."""
    random, world, app = run.world.random, run.world, run.apps[0]
    run.set_limits(100, 150)
    run.calls_between(gate, 0, 1.5, 30, 1, app)

    def extend() -> None:
        left_s = gate.leased_s - world.now
        moment_s = left_s + random.uniform(*when)
        _cut(gate, moment_s - 0.01)
        for alive_s in (1.6, 3.3, 5.2):  # in the first half of its time, so that nothing is asked for
            world.after(max(0.0, left_s + alive_s), lambda: run.call(gate, 1, app))
        if when == LAST_REQUEST_S:  # two requests that are lost; the third one is of that moment
            world.after(moment_s - 2 * ASKED_AGAIN_S - LINGER_S, lambda: run.call(gate, 1, app))
            world.after(moment_s - 1.1, lambda: run.call(gate, 1, app))
        run.calls_between(gate, moment_s, moment_s + 0.002, 2, 1, app)
        then(moment_s)

    world.after(1.5, extend)
    return 28.0


def steady(run: Run) -> float:
    """Few calls, without a pause, over midnight: leases are extended for a long time, and keepers are held up."""
    gate, random, world = _worst_timers(run), run.world.random, run.world
    run.set_limits(60, 200)
    at_s = 0.0
    while at_s < 30.0:
        world.after(at_s, lambda: run.call(gate, 1))
        at_s += random.uniform(0.1, 0.5)
    run.calls_between(gate, 18, 22.5, 25, 1)
    _others(run, gate, 0, 30, 15)
    for worker in run.workers:
        worker.keeping_s = random.choice([0.02, 0.5, 1.0])
    if random.random() < 0.4:
        world.after(random.uniform(5, 25), lambda: _fault(run, random.choice([gate, *run.workers])))
    return 36.0


def scarce(run: Run) -> float:
    """More demand than units, at every gate, so that units are asked back all the time; answers take long, gates stop and die."""
    random, world = run.world.random, run.world
    run.set_limits(6, 40)
    for _ in range(random.randint(2, 5)):
        moment_s = random.uniform(0, 12)
        for gate in run.gates:
            run.calls_between(gate, moment_s, moment_s + 1.0, random.randint(2, 15), random.choice([1, 2, None]))
    for gate in run.gates:
        gate.slow_reply = random.choice([None, (0.01, 0.3), (0.1, 0.9)])
        gate.slow_request = random.choice([None, None, (0.01, 0.3)])
    if random.random() < 0.5:
        world.after(random.uniform(0, 12), lambda: run.stall(random.uniform(0.5, 5)))
    if random.random() < 0.3:
        world.after(random.uniform(0, 12), run.change_limit)
    world.hazard = random.choice([0.0, 0.0, 0.003])
    for _ in range(random.randint(0, 3)):
        victim = random.choice(run.gates)
        happens = random.choice([victim.stop, victim.crash, lambda victim=victim: victim.pause(random.uniform(0.1, 3))])  # type: ignore[misc]
        world.after(random.uniform(0, 12), happens)
    return 14.0


def stalled(run: Run) -> float:
    """Nothing is counted while leases end: nothing of them may be given to others before it is."""
    gate, random, world = _worst_timers(run), run.world.random, run.world
    run.set_limits(15, 50)
    begin_s = random.uniform(0, 3)
    run.calls_between(gate, begin_s, begin_s + 2, random.randint(10, 30), 1)
    world.after(begin_s + random.uniform(0, 2), lambda: run.stall(random.uniform(10, 20)))
    happens = random.choice([gate.crash, gate.stop, lambda: _cut(gate, 14.0), lambda: gate.pause(random.uniform(2, 12))])
    world.after(begin_s + random.uniform(1, 3), happens)
    _others(run, gate, begin_s + 2, begin_s + 20, 25)
    return begin_s + 24.0


def old_leader(run: Run) -> float:
    """The leader of USAGE is cut off with one worker, or both, while a lease is spent; this is over before the leader knows."""
    gate, random, world = _worst_timers(run), run.world.random, run.world
    run.set_limits(15, 60)
    run.calls_between(gate, 0, 1.0, random.randint(5, 15), 1)
    cut_s, lasting_s = random.uniform(0.5, 3.0), random.uniform(9.0, 16.0)
    for worker in random.choice([run.workers, run.workers, run.workers[:1]]):
        world.after(cut_s, lambda worker=worker: worker.cut_off(lasting_s))  # type: ignore[misc]
    if random.random() < 0.5:
        world.after(cut_s, lambda: run.stall(lasting_s))
    run.calls_between(gate, cut_s, cut_s + 2.0, random.randint(5, 30), 1)
    happens = random.choice([gate.crash, gate.stop, lambda: _cut(gate, 14.0), lambda: gate.pause(random.uniform(2, 12))])
    world.after(cut_s + random.uniform(0.5, 4), happens)
    _others(run, gate, cut_s + 9, cut_s + 18, 25)
    return cut_s + 20.0


SCENES: Final[Mapping[Kind, Scene]] = {
    "anything": anything,
    "last moments": last_moments,
    "late extension": late_extension,
    "stopped": stopped,
    "steady": steady,
    "scarce": scarce,
    "stalled": stalled,
    "old leader": old_leader,
}
KINDS: Final[tuple[Kind, ...]] = (
    "anything", "last moments", "anything", "scarce", "late extension", "stalled", "anything", "steady", "scarce", "stopped",
    "old leader",
)  # fmt: skip
