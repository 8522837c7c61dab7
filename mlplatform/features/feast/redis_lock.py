"""A lock on Redis whose holders are numbered, so that the server can tell a late writer from its successor."""

from __future__ import annotations

import time
from typing import Any

from redis.lock import Lock

# One step on the server, so that numbers rise in the order in which the lock is held. They follow a clock: a server
# that was emptied, restored or replaced by a replica that lagged behind counts anew, but a number is not drawn again,
# so that no holder of before is taken for the one of now.
TAKE = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return false
end
local number = redis.call('INCR', KEYS[2])
if number < tonumber(ARGV[3]) then
    redis.call('SET', KEYS[2], ARGV[3])
    number = tonumber(ARGV[3])
end
return number
"""


class FencedLock(Lock):
    """The lock of redis-py, which draws a number, larger than the last one, whenever it is taken.

    Parameters:
        counter: key of the last number drawn.
        options: those of redis-py's lock; `timeout` is needed.

    Attributes:
        number: what was drawn when the lock was taken; 0 before.
    """

    def __init__(self, *arguments: Any, counter: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.counter = counter
        self.number = 0

    def do_acquire(self, token: str) -> bool:
        """Take the lock if it is free; its key is that of redis-py's lock, which earlier versions hold."""
        assert self.timeout is not None
        # Microseconds: a script's numbers are exact up to 2^53.
        now = time.time_ns() // 1_000
        drawn = self.redis.eval(TAKE, 2, self.name, self.counter, token, int(self.timeout * 1000), now)
        self.number = drawn or 0
        return drawn is not None
