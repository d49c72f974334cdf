"""The one exception of the package, and what it says of a broken clause."""

from __future__ import annotations


class TritError(ValueError):
    """Input that breaks a rule: an argument, an array, or a file.

    Every error that tritcodec raises for the values that it was given is a
    TritError; I/O raises OSError, an object of a foreign type may raise TypeError, and NumPy its own
    ValueError for nested lists that make no array.
    `clause` is the id of the SPEC.md requirement that was broken, or None
    where no requirement is concerned; `where` names the place in a file (a
    tensor, a byte offset), or is empty.
    """

    def __init__(self, message: str, *, clause: str | None = None, where: str = "") -> None:
        self.message = message
        self.clause = clause
        self.where = where
        place = f"{where}: " if where else ""
        ending = f" [{clause}]" if clause else ""
        super().__init__(f"{place}{message}{ending}")

    def at(self, where: str) -> TritError:
        """The same error, found at *where*."""
        return TritError(self.message, clause=self.clause, where=where)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes with clause and place (pickle)."""
        return _rebuild, (self.message, self.clause, self.where)


def _rebuild(message: str, clause: str | None, where: str) -> TritError:
    return TritError(message, clause=clause, where=where)
