"""How many requests to keep on their way: the law, without a clock or a network of its own.

The limit changes between windows, and by these rules alone, the first that holds:

1. The server was overloaded (429, a time limit passed, a connection broke): half the limit.
2. More requests wait in the server than a quarter of the limit: three quarters of it; others are at work there, too.
3. The limit was raised a window ago, and tokens per second rose by less than 5 %: back to where it was, and no new attempt for
   some windows: two at first, then four, eight, ... up to 64, because what the server can do seldom changes.
4. All places were taken all the time, and no request waits: a quarter more.

A window ends when it has lasted ``WINDOW_SECONDS`` and has seen two answers for each place. Throughput is counted in tokens that
came back, as answers differ in length; where a server tells none, each answer counts as one.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_SECONDS = 5.0
ANSWERS_A_PLACE = 2
WORTH_IT = 1.05
GROWTH, SHRINKING = 1.25, 0.75
FIRST_REST, LONGEST_REST = 2, 64
MOST = 256


@dataclass
class Pace:
    """
    Args:
        limit: requests at once, to begin with; the server's MAX_NUM_SEQS is a good one.
        fixed: it stays as it is.
    """

    limit: int
    fixed: bool = False
    most: int = MOST
    _began: float = 0.0
    _answers: int = 0
    _tokens: int = 0
    _overloaded: bool = False
    _raised_from: tuple[int, float] | None = None
    _rest: int = 0
    _next_rest: int = FIRST_REST

    def begin(self, now: float) -> None:
        self._open(now)

    def answered(self, tokens: int) -> None:
        self._answers += 1
        self._tokens += max(1, tokens)

    def overload(self) -> None:
        self._overloaded = True

    def is_over(self, now: float) -> bool:
        """Has the window lasted long enough to be judged? An overload is judged at once."""
        enough = now - self._began >= WINDOW_SECONDS and self._answers >= ANSWERS_A_PLACE * self.limit
        return not self.fixed and (self._overloaded or enough)

    def close(self, now: float, *, full: bool, waiting: int | None) -> None:
        """End the window and set the limit of the next.

        Args:
            full: all places were taken.
            waiting: requests that the server has put off; None when it does not tell.
        """
        rate = self._tokens / max(now - self._began, 1e-9)
        raised, self._raised_from = self._raised_from, None
        if self._overloaded:
            self.limit = max(1, self.limit // 2)
            self._rest_longer()
        elif waiting is not None and waiting > self.limit / 4:
            self.limit = max(1, int(self.limit * SHRINKING))
            self._rest_longer()
        elif raised and rate < raised[1] * WORTH_IT:
            self.limit = raised[0]
            self._rest_longer()
        elif self._rest > 0:
            self._rest -= 1
        elif full and not waiting and self.limit < self.most:
            if raised:
                self._next_rest = FIRST_REST
            self._raised_from = (self.limit, rate)
            self.limit = min(self.most, max(self.limit + 1, int(self.limit * GROWTH)))
        self._open(now)

    def _rest_longer(self) -> None:
        self._rest = self._next_rest
        self._next_rest = min(LONGEST_REST, 2 * self._next_rest)

    def _open(self, now: float) -> None:
        self._began, self._answers, self._tokens, self._overloaded = now, 0, 0, False
