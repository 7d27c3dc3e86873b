"""What the master runs with. It holds no model and no web code: workers load after the fork."""

import gunicorn.app.base
from gunicorn.errors import HaltServer

from asrsvc import settings as _settings
from asrsvc.serving import logs as _logs
from asrsvc.serving.arbiter import RollingArbiter
from asrsvc.serving.worker import Worker

# However gunicorn is started, it is this arbiter that runs: the application looks the name up there.
gunicorn.app.base.Arbiter = RollingArbiter

_in_force = _settings.load()

bind = [_in_force.bind, _in_force.ops_bind]
workers = _in_force.worker_count()
worker_class = "asrsvc.serving.worker.Worker"
wsgi_app = "asrsvc.web.app:create_app"  # named for gunicorn; Worker puts the application together
preload_app = False
proc_name = "asrsvc"
backlog = 2048
# A worker gives a heartbeat every second, while it loads and while it drains too.
timeout = round(_in_force.heartbeat_timeout)
graceful_timeout = round(_in_force.drain_timeout)
# The heartbeat files: in memory, so that a slow disk cannot make a worker look dead.
worker_tmp_dir = "/dev/shm"  # noqa: S108
control_socket_disable = True
logconfig_dict = _logs.configuration(_in_force.log_format, _in_force.log_level)


def on_starting(server: RollingArbiter) -> None:
    """Refuse to run under another arbiter: it would stop all workers at once on SIGHUP."""
    if not isinstance(server, RollingArbiter):
        raise HaltServer(
            "gunicorn runs another arbiter than asrsvc's: start it with gunicorn -c gunicorn.conf.py", 2
        )


def pre_fork(server: RollingArbiter, worker: Worker) -> None:
    """Give the new worker its task."""
    server.brief_worker(worker)


def post_fork(server: RollingArbiter, worker: Worker) -> None:  # noqa: ARG001 - gunicorn's names
    """In the new process: let go of what is the master's. The model is loaded next, in Worker.run."""
    server.leave_to_worker()
