"""The errors of beam_batch, and what each one does to a run.

    BatchError
      x OptionsError       a setting is wrong: nothing was sent, exit 2
      x InputLost          the input cannot be read any more, or has changed: exit 1, resumable
      x RunStopped         the run ended early: all that is done is kept, exit 1, 3, 4, 130 or 143
      x FatalReply         the provider refuses every request (key, model, quota, schema)
      x RowError           this row cannot succeed: an ok:false envelope, the run goes on
        + InvalidJSON InvalidRow InvalidEncoding MissingIdField (+ UnusableId)
        + MissingTemplateField InvalidTemplateValue InvalidImage
        + ProviderError: RequestRejected RateLimited (+ NoCapacity) ServerError ConnectionLost
                         TimedOut InvalidResponse
        + ReplyError: Refused Truncated ContentFiltered EmptyReply StructuredOutputError
        + AgentError: TooManyIterations RepeatedCall WorkflowFailed
        + RowCostReached ToolServerFailed (+ ToolServerDied)

An envelope's ``error.type`` is the class name, so the names below are public API.
"""

from __future__ import annotations

from collections.abc import Mapping


def first_line(error: BaseException) -> str:
    """Return what an error says in its first line, or its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


class BatchError(Exception):
    """Base of every error that beam_batch raises on purpose."""


class OptionsError(BatchError):
    """A setting that cannot work. The message names the flag, the value and the remedy."""


class InputLost(BatchError):
    """An input is gone, has changed since it was planned, or cannot be reached after retries."""


class RunStopped(BatchError):
    """The run ended before every row was answered; finished rows are kept.

    Attributes:
        exit_code: what the command line exits with.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FatalReply(BatchError):
    """The provider's answer means that no request of this run can succeed."""


class RowError(BatchError):
    """A row that cannot succeed; becomes an ``ok: false`` envelope.

    Attributes:
        reply: the model's text where one was paid for, else None.
    """

    def __init__(self, message: str, reply: str | None = None) -> None:
        super().__init__(message)
        self.reply = reply


class InvalidJSON(RowError):
    """The line is not JSON."""


class InvalidRow(RowError):
    """The line is not a usable row: not an object, or a CSV row of the wrong width."""


class InvalidEncoding(RowError):
    """The line is not UTF-8."""


class MissingIdField(RowError):
    """The row has no value under ``--id-field``."""


class UnusableId(MissingIdField):
    """The value under ``--id-field`` is no non-empty text and no number."""


class MissingTemplateField(RowError):
    """The template names fields that the row does not have."""


class InvalidTemplateValue(RowError):
    """A field of the row cannot be written into a prompt."""


class InvalidImage(RowError):
    """A field that is to be an image is none, is too large, or may not be read."""


class ProviderError(RowError):
    """The request did not end in an answer.

    Attributes:
        retryable: whether a further attempt may succeed.
        retry_after: seconds the provider asked to wait, or None.
        status: HTTP status, or None where there was none.
        headers: of the answer, where there was one.
        unsent: whether there was no connection, so that the request never left.
    """

    retryable = False
    headers: Mapping[str, str] | None = None

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        unsent: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.unsent = unsent


class RequestRejected(ProviderError):
    """The provider refuses this request (400, 404, 413, 422, a redirect)."""


class RateLimited(ProviderError):
    """429: too many requests or tokens."""

    retryable = True


class NoCapacity(RateLimited):
    """429 at service_tier=flex: the provider has no capacity to spare at the moment."""


class ServerError(ProviderError):
    """408, 409, 425 or 5xx, or an error that the provider reports as its own."""

    retryable = True


class ConnectionLost(ProviderError):
    """The connection failed or was cut before the answer was whole."""

    retryable = True


class TimedOut(ProviderError):
    """No answer, or no next piece of a stream, within the time allowed."""

    retryable = True


class InvalidResponse(ProviderError):
    """The body is not what the provider's format promises (not JSON, HTML, wrong shape).

    Not sent again: the answer may have been paid for.
    """


class ReplyError(RowError):
    """The model answered, but not with a complete and valid answer."""


class Refused(ReplyError):
    """The model refused."""


class Truncated(ReplyError):
    """The answer was cut off by a token limit."""


class ContentFiltered(ReplyError):
    """The provider withheld the answer."""


class EmptyReply(ReplyError):
    """The answer has no text."""


class StructuredOutputError(ReplyError):
    """The answer is not JSON, or does not satisfy the schema."""


class AgentError(RowError):
    """An agent did not come to an answer; one that had asked it may go another way."""


class TooManyIterations(AgentError):
    """The model went on calling tools until `max_iterations` was reached."""


class RepeatedCall(AgentError):
    """The model called the same tool with the same arguments again and again, in a row or not."""


class WorkflowFailed(AgentError):
    """The steps of a workflow did not lead to an answer (no vote won, no agent chosen)."""


class RowCostReached(RowError):
    """The next model call could pass ``--row-max-cost``."""


class ToolServerFailed(RowError):
    """An MCP server died, did not answer in time or broke the protocol."""


class ToolServerDied(ToolServerFailed):
    """An MCP server, or the connection to it, ended while it worked for this row.

    It is started again by the next use, so the row is worth one more try.
    """
