"""What the master runs with. It holds no model and no web code: workers load after the fork."""

from typing import TYPE_CHECKING

from asrsvc import settings as _settings
from asrsvc.serving import logs as _logs

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

    from asrsvc.serving.worker import Worker

_in_force = _settings.load()

bind = _in_force.bind
workers = _in_force.worker_count()
worker_class = "asrsvc.serving.worker.Worker"
wsgi_app = "asrsvc.web.app:create_app"  # named for gunicorn; Worker.load_wsgi calls it
preload_app = False
proc_name = "asrsvc"
backlog = 2048
# A worker gives no heartbeat while it loads.
timeout = round(_in_force.ready_timeout)
graceful_timeout = round(_in_force.drain_timeout)
# The heartbeat files: in memory, so that a slow disk cannot make a worker look dead.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True
logconfig_dict = _logs.configuration(_in_force.log_format, _in_force.log_level)


def post_fork(server: "Arbiter", worker: "Worker") -> None:  # noqa: ARG001 - gunicorn's names
    """Load the model in the new process."""
    worker.load_model(_in_force)
