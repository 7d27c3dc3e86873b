"""One tree of errors; each class carries what the layers above need, as data.

`status` is the HTTP status of the answer, `code` the stable machine-readable name,
`exit_code` what a command-line tool exits with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar


class AsrError(Exception):
    """Base of everything that asrsvc raises on purpose.

    Args:
        message: one sentence for a person; names the field, the value and the limit.
        param: the request field that is wrong, or None.
        code: replaces the class's code where one class serves several cases.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    default_code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[int] = 1
    retry_after_seconds: int | None = None
    """Sent as `Retry-After` where the same request may succeed later."""
    public: ClassVar[str] = ""
    """What clients are told in the place of a message that names files of the operator; the log has that."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code


class HandedOn(BaseException):
    """The request goes on in another worker: nothing here may answer it, or count it.

    It is no Exception, so that nobody on the way takes it for a failure.
    """


class BadRequest(AsrError):
    """The request cannot be understood: a field is missing, unknown or has a wrong value."""

    status = HTTPStatus.BAD_REQUEST
    default_code = "invalid_value"


class BadAudio(BadRequest):
    """The uploaded file is not audio that can be decoded, or is damaged."""

    default_code = "audio_undecodable"


class NotFound(AsrError):
    """No such path."""

    status = HTTPStatus.NOT_FOUND
    default_code = "not_found"


class Unauthorised(AsrError):
    """The token is missing or wrong."""

    status = HTTPStatus.UNAUTHORIZED
    default_code = "unauthorized"


class MethodNotAllowed(AsrError):
    """The path exists, the method does not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    default_code = "method_not_allowed"


class RequestTimeout(AsrError):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    default_code = "body_timeout"


class TooLarge(AsrError):
    """The upload has more bytes, or more seconds of audio, than the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_code = "upload_too_large"


class UrlRefused(BadRequest):
    """The address may not be asked: its host is not in the list, or it leads to a private address."""

    default_code = "url_refused"


class FetchFailed(AsrError):
    """What the address names cannot be had: nobody answers there, or not with a recording."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    default_code = "url_failed"


class FetchTimeout(RequestTimeout):
    """What the address names did not arrive in time."""

    default_code = "url_timeout"


class UnsupportedMediaType(AsrError):
    """The body is not multipart/form-data."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    default_code = "unsupported_media_type"


class OverCapacity(AsrError):
    """As many requests wait as may wait."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    default_code = "over_capacity"
    retry_after_seconds = 1


class LimitReached(AsrError):
    """This client has as many requests at the same time, or sent as many in a minute, as it may.

    Args:
        message: see `AsrError`.
        code: which limit it is.
        retry_after: seconds until another request may be let in.
    """

    status = HTTPStatus.TOO_MANY_REQUESTS
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, code: str, retry_after: int) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after


class NoSpace(AsrError):
    """The folder for uploads is full or cannot be written."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    default_code = "no_space"
    retry_after_seconds = 10


class OutOfDescriptors(AsrError):
    """The process, or the machine, has as many open files as it may have: none can be opened for a moment."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "out_of_descriptors"
    retry_after_seconds = 2


class TooManyJobs(OverCapacity):
    """As many jobs are kept as may be kept, of all clients or of this one."""

    default_code = "too_many_jobs"
    retry_after_seconds = 60


class JobNotFinished(AsrError):
    """The job has no result yet."""

    status = HTTPStatus.CONFLICT
    default_code = "job_not_finished"
    retry_after_seconds = 2


class JobHasNoResult(AsrError):
    """The job has ended without a result: it failed, or was cancelled; the code says which."""

    status = HTTPStatus.CONFLICT
    default_code = "job_failed"


class JobsUnavailable(AsrError):
    """The folder that jobs are kept in cannot be used; the log says why."""

    public = "the folder that jobs are kept in (ASR_STATE_DIR) cannot be used; the service's log says why"

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "jobs_unavailable"
    retry_after_seconds = 10


class NotReady(AsrError):
    """No model is loaded, or the wait for a free slot took too long."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "not_ready"
    retry_after_seconds = 2


class Cancelled(AsrError):
    """The client has gone; the rest of its work is dropped. No answer reaches anybody."""

    default_code = "client_gone"


class InferenceFailed(AsrError):
    """The engine could not run, or gave numbers that are not finite."""

    default_code = "inference_failed"


class ModelError(AsrError):
    """A model version cannot be loaded; the message names the file and what is wrong with it."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "model_error"
    exit_code = 4


class StoreError(AsrError):
    """The store of versions is not as it must be; the message names the path."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "store_error"
    exit_code = 5


class StoreFull(StoreError):
    """The disk of the store has no space left; the message says how much is needed, if that is known."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    default_code = "store_full"
    exit_code = 25


class UnknownVersion(StoreError):
    """The store has no version of this id."""

    status = HTTPStatus.NOT_FOUND
    default_code = "unknown_version"
    exit_code = 24


class AmbiguousVersion(UnknownVersion):
    """More than one version is called so; the message names each."""

    status = HTTPStatus.CONFLICT
    default_code = "ambiguous_version"


class VersionInUse(StoreError):
    """A version that is to be removed is pointed to, or loaded; the message says by whom."""

    status = HTTPStatus.CONFLICT
    default_code = "version_in_use"
    exit_code = 42


class VersionDamaged(StoreError):
    """The files of a version are not those that were stored; the message names each.

    Args:
        message: see `AsrError`.
        faults: one a file: `file`, `kind`, `detail`.
    """

    status = HTTPStatus.CONFLICT
    default_code = "version_damaged"
    exit_code = 23

    def __init__(self, message: str, faults: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class StoreLocked(StoreError):
    """Another change of the store is under way; the message says whose, and since when."""

    status = HTTPStatus.CONFLICT
    default_code = "store_locked"
    exit_code = 40


class KeysError(AsrError):
    """The file of API keys cannot be read or written, or is not what it must be; the message names it."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "keys_error"
    exit_code = 6


class UnknownKey(AsrError):
    """The file of API keys has none of this name."""

    status = HTTPStatus.NOT_FOUND
    default_code = "unknown_key"
    exit_code = 7


class StartError(AsrError):
    """The service cannot be started; the message says why and what to do."""

    default_code = "start_error"
    exit_code = 2


# What an operator's command ends with.


class BadArgument(AsrError):
    """What a command was given cannot be meant: a name, a source or a digest of no possible form."""

    status = HTTPStatus.BAD_REQUEST
    default_code = "bad_argument"
    exit_code = 2


class SourceError(AsrError):
    """A source holds no model, or what no model holds; to try again does not help."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    default_code = "source_error"
    exit_code = 20


class PackageMissing(AsrError):
    """A package that downloads need is not installed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "package_missing"
    exit_code = 26


class DownloadFailed(AsrError):
    """A hub or the way to it fails; what has arrived is kept for the next try."""

    status = HTTPStatus.BAD_GATEWAY
    default_code = "download_failed"
    exit_code = 21


class WrongDigest(AsrError):
    """A file is not the one that was promised: another size or another SHA-256."""

    status = HTTPStatus.BAD_GATEWAY
    default_code = "wrong_digest"
    exit_code = 22


class StatusError(AsrError):
    """The status file is missing, damaged or cannot be written; the message names it."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "status_error"
    exit_code = 10


class NotRunning(AsrError):
    """No service is running, or it ended while it was waited for."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "not_running"
    exit_code = 10


class ReloadRefused(AsrError):
    """The master did not begin a roll: a setting or a pointer is wrong."""

    status = HTTPStatus.CONFLICT
    default_code = "reload_refused"
    exit_code = 11


class RollFailed(AsrError):
    """The new version did not do; its workers have been replaced by the old one."""

    status = HTTPStatus.CONFLICT
    default_code = "roll_failed"
    exit_code = 12


class RollAborted(AsrError):
    """Somebody has called the roll off."""

    status = HTTPStatus.CONFLICT
    default_code = "roll_aborted"
    exit_code = 13


class WaitTimeout(AsrError):
    """The time to wait is over; what was waited for goes on."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    default_code = "wait_timeout"
    exit_code = 14


class AbortTooLate(AsrError):
    """The roll has succeeded, or has nothing that could be undone."""

    status = HTTPStatus.CONFLICT
    default_code = "abort_too_late"
    exit_code = 15


class OperationUnderWay(AsrError):
    """The admin API has begun something that has not ended; the message says where to look."""

    status = HTTPStatus.CONFLICT
    default_code = "operation_under_way"


class NotTried(AsrError):
    """The version has no passed trial for its very files, and has not served well either."""

    status = HTTPStatus.CONFLICT
    default_code = "not_tried"
    exit_code = 41


class TrialFailed(AsrError):
    """A version did not pass its trial; the message says why, with figures."""

    status = HTTPStatus.CONFLICT
    default_code = "trial_failed"
    exit_code = 30

    def __init__(self, message: str, *, report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report or {}
        """what the trial found, as its record says it"""


class ClipsError(AsrError):
    """The recordings that versions are tried on are not as they must be; names every file."""

    status = HTTPStatus.CONFLICT
    default_code = "clips_error"
    exit_code = 31


class TrialImpossible(AsrError):
    """No version can be tried here: what a trial needs is missing. Says nothing of the version."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "trial_impossible"
    exit_code = 32


class BakeFailed(AsrError):
    """No faster twin of a version could be made on this host; its published file is served as it is."""

    default_code = "bake_failed"
    exit_code = 33


class WatchFailed(AsrError):
    """The new version served, did badly, and was taken back."""

    status = HTTPStatus.CONFLICT
    default_code = "watch_failed"
    exit_code = 43


class NothingToRollBack(AsrError):
    """No version is known that served well before."""

    status = HTTPStatus.CONFLICT
    default_code = "nothing_to_roll_back"
    exit_code = 44


class NotPermitted(AsrError):
    """This user may not do that; the message says who may."""

    status = HTTPStatus.FORBIDDEN
    default_code = "not_permitted"
    exit_code = 77  # EX_NOPERM of sysexits.h


class RootRefused(AsrError):
    """Root may not work there: others could lead it astray, or it cannot become the owner of the store."""

    status = HTTPStatus.FORBIDDEN
    default_code = "root_refused"
    exit_code = 79
