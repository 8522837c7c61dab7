"""Several workers that answer on one port: starts them, starts those that die anew, and ends them together.

All of them accept from one listening socket, so that what waits in its queue is never that of a worker that died or
hangs. A worker that takes the place of another listens once it has looked for its pairs. One that ends unwished is
started anew, after a pause that grows if it does not live; what it had counted stays in the server's metrics. A worker
notices the end of its supervisor by a pipe, and ends too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from mlplatform.storage import atomic_file
from serving.exposition import cumulative, merged
from serving.ports import listening
from serving.siblings import ENDED, SOCKET, ask

logger = logging.getLogger(__name__)

TICK_S = 0.1
# Between two looks at every worker; what one counted since the last look dies with it.
LOOK_S = 2.0
LOOK_PATIENCE_S = 1.0
# A worker that has answered nothing for so long hangs. Longer than any answer may take.
HUNG_S = 30.0
STARTING_S = 180.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 15.0
# Who lived so long did not die of its start.
LIVED_S = 30.0
# Beyond the drain delay and the longest time that requests in flight are waited for.
STOP_MARGIN_S = 30.0


@dataclass
class _Place:
    """One worker's place.

    Attributes:
        process: the worker; `None` while there is none.
        began: when it was started.
        seen: when it last answered; `None` if it never did.
        page: the metrics that it then had.
        pause_s: how long to wait before the next one.
        due: when to start the next one.
    """

    index: int
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    seen: float | None = None
    page: bytes = b""
    pause_s: float = FIRST_PAUSE_S
    due: float = 0.0
    starts: int = 0


@dataclass
class Supervisor:
    """Keeps workers.

    Attributes:
        command: starts a worker; what it listens on and whose place it takes is added.
        count: workers to keep.
        host, port: where they listen.
        probe_port: where they listen for probes alone, if they do.
        drain_s: how long each goes on after it was told to end.
    """

    command: list[str]
    count: int
    host: str
    port: int
    drain_s: float
    probe_port: int | None = None
    _places: list[_Place] = field(default_factory=list)
    _is_ending: bool = False

    def run(self) -> None:
        """Keep the workers until SIGINT or SIGTERM; returns once all have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self._places = [_Place(index) for index in range(self.count)]
        with (
            listening(self.host, self.port) as listener,
            listening(self.host, self.probe_port) if self.probe_port else nullcontext() as probes,
            _private_folder() as folder,
            _lifeline() as lifeline,
        ):
            passed = {"--listener": listener.fileno(), "--lifeline": lifeline}
            if probes is not None:
                passed["--probes"] = probes.fileno()
            logger.info("%d workers serve on %s:%d", self.count, self.host, self.port)
            looked = 0.0
            while not self._is_ending:
                now = time.monotonic()
                for place in self._places:
                    self._keep(place, now, folder, passed)
                if now - looked >= LOOK_S:
                    asyncio.run(self._look(folder))
                    looked = now
                time.sleep(TICK_S)
            # Otherwise clients could still connect when nobody takes their connections any more.
            listener.close()
            self._stop()

    def _end(self, *_: int | FrameType | None) -> None:
        self._is_ending = True

    def _keep(self, place: _Place, now: float, folder: Path, passed: Mapping[str, int]) -> None:
        if place.process is None:
            if now >= place.due:
                self._start(place, now, folder, passed)
        elif place.process.poll() is not None:
            self._bury(place, now, folder)
        elif now - (place.seen or place.began) > (HUNG_S if place.seen else STARTING_S):
            logger.error("worker %d (process %d) does not answer and is killed", place.index, place.process.pid)
            place.process.kill()

    def _start(self, place: _Place, now: float, folder: Path, passed: Mapping[str, int]) -> None:
        arguments = {**passed, "--folder": folder, "--index": place.index}
        command = [*self.command, *(str(part) for pair in arguments.items() for part in pair)]
        if place.starts:
            command.append("--replaces")
        # Sessions of their own: Ctrl-C is for the supervisor, which then ends them.
        place.process = subprocess.Popen(  # noqa: S603 - this program
            command, pass_fds=tuple(passed.values()), start_new_session=True
        )
        place.began, place.seen = now, None
        place.starts += 1

    def _bury(self, place: _Place, now: float, folder: Path) -> None:
        assert place.process is not None
        lived = now - place.began
        place.pause_s = FIRST_PAUSE_S if lived > LIVED_S else min(place.pause_s * 2, LONGEST_PAUSE_S)
        place.due = now + place.pause_s
        logger.warning(
            "worker %d (process %d) ended with status %d after %.0f s; another one starts in %.1f s",
            place.index,
            place.process.pid,
            place.process.returncode,
            lived,
            place.pause_s,
        )
        place.process = None
        (folder / SOCKET.format(place.index)).unlink(missing_ok=True)
        if place.page:
            kept = folder / ENDED
            pages = [cumulative(place.page), *([kept.read_bytes()] if kept.exists() else [])]
            with atomic_file(kept) as temporary:
                temporary.write_bytes(merged(pages))
            place.page = b""

    async def _look(self, folder: Path) -> None:
        """Ask every worker for its metrics, which also says whether it lives."""

        async def one(place: _Place) -> None:
            answer = await ask(folder / SOCKET.format(place.index), "GET", "/metrics", LOOK_PATIENCE_S)
            if answer is not None and answer.status == 200:
                place.seen, place.page = time.monotonic(), answer.body

        await asyncio.gather(*(one(place) for place in self._places if place.process is not None))

    def _stop(self) -> None:
        processes = [place.process for place in self._places if place.process is not None]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + self.drain_s + STOP_MARGIN_S
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.error("process %d does not end and is killed", process.pid)
                process.kill()
                process.wait()
        logger.info("all workers have ended")


@contextmanager
def _private_folder() -> Iterator[Path]:
    # Short: the path of a Unix socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="mlp-serving-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lifeline() -> Iterator[int]:
    """Yield the reading end of a pipe, which ends when this process does, however it ends."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def worker_command(experiments: str) -> list[str]:
    """Return the command of a worker of this server."""
    return [sys.executable, "-m", "serving.worker", "--experiment", experiments]
