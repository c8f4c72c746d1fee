"""Which of the numbered files of `migrations/` a database lacks."""

from collections.abc import Collection
from importlib.resources import files
from typing import Literal, NamedTuple, TypeAlias

from services.registry.errors import StartError

Dialect: TypeAlias = Literal["sqlite", "postgres"]


class Migration(NamedTuple):
    number: int
    script: str


def migrations(dialect: Dialect) -> list[Migration]:
    """All of them, in order. Numbers may be left out."""
    folder = files("services.registry") / "migrations" / dialect
    return sorted(
        Migration(int(file.name.split("_")[0]), file.read_text("utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    )


def missing(known: Collection[Migration], applied: Collection[int]) -> list[Migration]:
    """What is to be applied, in order; also one whose number is below an applied one.

    Raises `StartError` when the database has had one that is not known: it was written
    by a newer registry, whatever the number.
    """
    numbers = {each.number for each in known}
    if newer := sorted(set(applied) - numbers):
        raise StartError(
            f"the database has schema {newer[-1]}, this registry knows {max(numbers)}: "
            "start the version that wrote it, or a newer one"
        )
    return sorted(each for each in known if each.number not in applied)
