"""What a command cannot do for reasons of its own."""


class Failure(Exception):
    """Told as `error: …` and `remedy: …`; ends the command with `status`."""

    def __init__(self, message: str, remedy: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.status = status


class UsageError(Failure):
    """The command line makes no sense."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, status=2)
