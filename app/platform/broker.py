"""The queue of long work: a Celery application with the settings that survived being killed, measured one by one.

The front door makes one to send tasks by name; `tasks.app` makes one to run them. It knows no task.

Every Redis key of the tasks, beside Celery's own, is a STRING that expires; losing one costs a message too many:

    carillon:tasks:<host>-<pid>   for HEARTBEAT_TTL_S: this tasks process takes part in its broker's life
    carillon:tasks:reconcile      for RECONCILE_S: one process has looked for lost work
    carillon:tasks:janitor        for CLEAN_S: one process has sent the task that cleans
    carillon:narrate:<narration>  for RESENT_S: its message was sent again
    carillon:webhook:<id>         for 15 s to 15 min: the webhook of this job or narration was sent again
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import quote

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from celery import Celery

    from app.platform.settings import Settings

QUEUES = INTERACTIVE, RENDER, TRAIN = "interactive", "render", "train"
"""Kinds of work; the queue of `train` is each model's own, since a trainer holds one model."""

CLONE, NARRATE, WEBHOOK, CLEAN = "carillon.clone", "carillon.narrate", "carillon.webhook", "carillon.janitor"
"""The tasks by name: a sender need not import what one does."""

VISIBILITY_TIMEOUT_S = 60
"""A message whose worker is gone comes back after so long. `tasks.message_lease` keeps it from running twice."""

CHILD_TIMEOUT_S = 300.0
"""How long a pool's child may take to import what it needs."""

RECONCILE_S = 15
"""Between two looks for work that no process holds."""

CLEAN_S = 3600

HEARTBEAT_TTL_S = 15

CHECKED = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
"""Over TLS: who answers is who the address names, for an authority of the system or of SSL_CERT_FILE."""

RECONCILE_KEY, CLEAN_KEY = "carillon:tasks:reconcile", "carillon:tasks:janitor"


def heartbeat_key(node: str) -> str:
    """Of the tasks process `node`, which is `host-pid`."""
    return f"carillon:tasks:{node}"


def narration_sent_key(narration_id: str) -> str:
    return f"carillon:narrate:{narration_id}"


def webhook_sent_key(job_id: str) -> str:
    return f"carillon:webhook:{job_id}"


def train_queue(model: str) -> str:
    """Where jobs wait for a trainer of `model`."""
    return f"train.{quote(model, safe='')}"  # no comma: Celery takes a list of queues as one text


def make_celery(settings: Settings, *, visibility_timeout_s: float = VISIBILITY_TIMEOUT_S) -> Celery:
    """A Celery application on the configured Redis. Raises ConfigurationError when none is configured."""
    from celery import Celery
    from kombu.entity import Exchange, Queue

    if settings.redis_url is None:
        raise ConfigurationError("CARILLON_REDIS_URL is not set; `carillon up` starts an embedded Valkey and sets it")
    url = settings.redis_url.get_secret_value()
    celery = Celery("carillon", broker=url, backend=url, set_as_current=False)
    celery.conf.update(
        task_queues=[Queue(name, Exchange("carillon"), routing_key=name) for name in (INTERACTIVE, RENDER)],
        task_default_queue=INTERACTIVE,
        task_default_exchange="carillon",
        task_default_routing_key=INTERACTIVE,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": visibility_timeout_s,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "queue_order_strategy": "priority",  # 0 is the most urgent
        },
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_retry_on_worker_lost=True,  # counts a death as a try, so that max_retries ends a poisonous task
        task_track_started=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool="prefork",
        worker_pool_start_method="spawn",  # CUDA does not survive a fork
        # A child that is not up by then is killed and another started, for ever: 4 s are too few for a slow machine.
        worker_proc_alive_timeout=CHILD_TIMEOUT_S,
        worker_soft_shutdown_timeout=30,
        worker_hijack_root_logger=False,
        worker_deduplicate_successful_tasks=True,
        worker_send_task_events=True,
        # Not worker_cancel_long_running_tasks_on_connection_loss: a job was lost with it.
        result_expires=86_400,
    )
    if url.startswith("rediss:"):
        # Celery refuses TLS without a word on certificates, and kombu would check none.
        celery.conf.update(broker_use_ssl=CHECKED, redis_backend_use_ssl=CHECKED)
    return celery
