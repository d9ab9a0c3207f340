"""Every error a user or another process can meet, drawn once.

* CarillonError                     something of ours failed
  * InvalidRequest                  the request cannot be honoured as it stands
    * TextTooLong                   the text is longer than the limit announced
    * UnknownVoice                  no model served here has the voice
    * UnknownModel                  no worker serves the model
    * UnknownSession                a message names a session that is not open on this socket, or cannot be resumed
    * SessionInUse                  a session id is started twice
    * TextAfterEnd                  text arrives after the end of the stream was announced
    * NotFound                      there is no such voice, recording or job
    * Conflict                      something that exists already is in the way
    * ConsentMissing                a voice may not be trained before its owner has consented
    * RecordingUnfit                a recording cannot be used, or all of them together are not enough
    * ManuscriptUnfit               a text, a book or its cover cannot be narrated as it is
  * AuthenticationFailed            there is no key, or it is not one of ours
  * PermissionDenied                the key is good, its scopes are not
  * RateLimited                     a limit of the caller's is reached for now; come again after `retry_after_s`
  * QuotaExceeded                   the caller's project has all that it may have
  * Overloaded                      no room now; come again after `retry_after_s`
  * WorkerLost                      the connection to the worker broke under a session
  * EngineFailed                    the engine failed this request, or is gone
  * SpeechFailed                    one session after the other broke over the same text
  * AdapterUnavailable              a voice's adapter is missing, damaged or unfit for the engine
  * TrainingFailed                  training cannot go on with this data and these hyper-parameters
  * ObjectMissing                   the object store has no object of that name
  * StoreUnavailable                the object store or the catalogue does not answer, or refuses us
  * JobLost                         a job is another worker's now, or over
  * GateFailed                      an adapter is not good enough to be published
  * StageFailed                     a stage of a job broke off without saying why
  * OutOfMemory                     a card had not the memory that was asked of it
  * DeadlineExceeded                another process did not answer in time
    * SessionIdle                   nothing was sent into a session for too long
  * SlowReader                      the client does not take the audio it asked for
  * SessionResumed                  a session goes on on another connection
  * ConfigurationError              settings, files or packages do not fit together

An error crosses a process boundary as its `code` and fields (`to_wire`) and is rebuilt there (`from_wire`). This module
does not know HTTP: `app.api.errors` is the only place that maps a class to a status.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CarillonError(Exception):
    """Something of ours failed. `message` names the value and the remedy; `code` is stable, for programs."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def to_wire(self) -> dict[str, Any]:
        """The fields that survive a process boundary; absent ones are left out."""
        fields = {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "param": self.param,
            "retry_after_s": self.retry_after_s,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @staticmethod
    def from_wire(
        code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> CarillonError:
        """Rebuild the error a peer sent. A code this version does not know becomes a plain CarillonError."""
        kind = _by_code(CarillonError).get(code, CarillonError)
        return kind(message, param=param, retry_after_s=retry_after_s)


def _by_code(root: type[CarillonError]) -> dict[str, type[CarillonError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_by_code(child))
    return found


class InvalidRequest(CarillonError):
    """The request cannot be honoured as it stands; sending it again changes nothing."""

    code = "invalid_request"


class TextTooLong(InvalidRequest):
    """The text is longer than the limit announced."""

    code = "text_too_long"


class UnknownVoice(InvalidRequest):
    """No model served here has the voice; the message lists the nearest names."""

    code = "unknown_voice"


class UnknownModel(InvalidRequest):
    """No worker serves the model; the message lists those that are served."""

    code = "unknown_model"


class UnknownSession(InvalidRequest):
    """A message names a session that is not open on this socket, or there is none to resume."""

    code = "unknown_session"


class SessionInUse(InvalidRequest):
    """A session id is started twice on one socket."""

    code = "session_in_use"


class TextAfterEnd(InvalidRequest):
    """Text arrives after `eos`."""

    code = "text_after_end"


class NotFound(InvalidRequest):
    """There is no voice, recording or job of that id, or it is deleted."""

    code = "not_found"


class Conflict(InvalidRequest):
    """Something that exists already is in the way: a name, a running job."""

    code = "conflict"


class ConsentMissing(InvalidRequest):
    """A voice may not be trained before its owner has consented."""

    code = "consent_missing"


class RecordingUnfit(InvalidRequest):
    """A recording cannot be used, or all of them together are not enough."""

    code = "recording_unfit"


class ManuscriptUnfit(InvalidRequest):
    """A text, a book or its cover cannot be narrated as it is; the message names the place."""

    code = "manuscript_unfit"


class AuthenticationFailed(CarillonError):
    """There is no key, or it is not one of ours, or it has expired."""

    code = "authentication_failed"


class PermissionDenied(CarillonError):
    """The key is good, its scopes are not."""

    code = "permission_denied"


class RateLimited(CarillonError):
    """A limit of the caller's project or key is reached for now; come again after `retry_after_s`."""

    code = "rate_limited"
    retryable = True


class QuotaExceeded(CarillonError):
    """The caller's project has all that it may have; something must go, or an operator raise the limit."""

    code = "quota_exceeded"


class Overloaded(CarillonError):
    """No room now; come again after `retry_after_s`."""

    code = "overloaded"
    retryable = True


class WorkerLost(CarillonError):
    """The connection to the worker broke under a session."""

    code = "worker_lost"
    retryable = True


class EngineFailed(CarillonError):
    """The engine failed this request, or is gone and its worker restarts."""

    code = "engine_failed"
    retryable = True


class SpeechFailed(CarillonError):
    """One session after the other broke over the same text; speaking it again would bring down more workers."""

    code = "speech_failed"


class AdapterUnavailable(CarillonError):
    """A voice's adapter is missing, damaged or of a kind the engine cannot load."""

    code = "adapter_unavailable"


class TrainingFailed(CarillonError):
    """Training cannot go on with this data and these hyper-parameters; doing the same again changes nothing."""

    code = "training_failed"


class ObjectMissing(CarillonError):
    """The object store has no object of that name."""

    code = "object_missing"


class StoreUnavailable(CarillonError):
    """The object store or the catalogue does not answer, or refuses us."""

    code = "store_unavailable"
    retryable = True


class JobLost(CarillonError):
    """A job is another worker's now, or over: the process that held it stops and changes nothing."""

    code = "job_lost"


class GateFailed(CarillonError):
    """An adapter is not good enough to be published; the message says in what, and what to do."""

    code = "gate_failed"


class StageFailed(CarillonError):
    """A stage of a job broke off without saying why: it was killed, or it crashed."""

    code = "stage_failed"
    retryable = True


class OutOfMemory(CarillonError):
    """A card had not the memory that was asked of it; others use it too, so it may have it another time."""

    code = "out_of_memory"
    retryable = True


class DeadlineExceeded(CarillonError):
    """Another process did not answer in time."""

    code = "deadline_exceeded"
    retryable = True


class SessionIdle(DeadlineExceeded):
    """Nothing was sent into a session for too long."""

    code = "session_idle"


class SlowReader(CarillonError):
    """The client does not take the audio it asked for."""

    code = "slow_reader"


class SessionResumed(CarillonError):
    """The session was taken up on another connection and goes on there; here it has ended."""

    code = "session_resumed"


class ConfigurationError(CarillonError):
    """Settings, files or packages do not fit together; the message says which and how to mend it."""

    code = "configuration_error"
