"""A progress bar for tests: it keeps what it counts, and may react to it."""

from collections.abc import Callable


class Counter:
    """Keeps every count; `react(count)` follows each, and may raise."""

    def __init__(self, react: Callable[[int], None] = lambda count: None):
        self.counts: list[int] = []
        self._react = react

    def advance(self, count: int = 1, note: str = "") -> None:
        self.counts.append(count)
        self._react(count)

    @property
    def total(self) -> int:
        """All that was counted."""
        return sum(self.counts)
