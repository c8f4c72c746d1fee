"""What keeps the suite from starting."""


class CannotStart(Exception):
    """The message says why, `remedy` what to do, `status` is the exit status."""

    def __init__(self, message: str, remedy: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.status = status
