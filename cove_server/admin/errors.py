"""What keeps a backup from being made or restored."""


class Refused(Exception):
    """The message says why, `remedy` what to do. Nothing was changed."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
