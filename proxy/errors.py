"""Every exception that Sluicegate raises on purpose.

    SluicegateError
    ├── SettingsError        the settings file, environment or flags; `.problems` has them all
    ├── PolicyError          a policy directory that cannot become a generation; `.problems`
    ├── ContractError        a callout broke the stream contract; touches its flow only
    ├── RedirectError        a provider cannot be installed or does not work here
    │   ├── NotRedirected    the client connected to the listener directly
    │   ├── BadPreamble      what an explicit client sent first is not understood
    │   ├── RecordsNotSettable   WFP's redirect records cannot go onto our upstream socket
    │   └── WinApiError      a call into Windows failed
    ├── AdminError           the admin endpoint of a running service cannot be asked
    └── StartError           the service cannot start (exit code 3)

Each message says what happened, where, and what the user can do. Hostile bytes are never an
exception: they are an anomaly (`proxy.anomalies`).
"""

from __future__ import annotations

from dataclasses import dataclass


class SluicegateError(Exception):
    """Root of the tree."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a file, placed (1-based line and column; 0 where there is none)."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class _WithProblems(SluicegateError):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SettingsError(_WithProblems):
    """The settings are not usable; nothing was started."""


class PolicyError(_WithProblems):
    """The policies are not usable; the generation in force stays."""


class ContractError(SluicegateError):
    """A callout's verdict does not fit what it was shown."""


class RedirectError(SluicegateError):
    """A redirect provider cannot do its work; the message says what is missing."""


class NotRedirected(RedirectError):
    """There is no original destination: the client connected to the listener itself."""


class BadPreamble(RedirectError):
    """An explicit client's first bytes are not a request this provider understands."""

    def __init__(self, message: str, reply: bytes = b"") -> None:
        self.reply = reply
        super().__init__(message)


class RecordsNotSettable(RedirectError):
    """Windows would not see our upstream connection as its client's: a row of the exceptions."""


class WinApiError(RedirectError):
    """A call into Windows failed. `code` is its error, unsigned (WSAE…, ERROR_…, FWP_E_…)."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


class AdminError(SluicegateError):
    """The admin endpoint did not answer, or not as Sluicegate does."""


class StartError(SluicegateError):
    """The service cannot start; the message says why and what to do."""
