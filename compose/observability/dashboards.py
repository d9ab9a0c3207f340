"""The Grafana dashboards: `python compose/observability/dashboards.py` writes them beside this file, as JSON.

Each panel is a title, a unit and its queries. They are built by Grafana's own builders, so that a field or unit that
Grafana does not have fails here. A test fails while the files are not current, or name a metric that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

DIRECTORY = Path(__file__).parent / "dashboards"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${source}")

COLUMNS, WIDTH, HEIGHT = 2, 12, 8
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: dict[str, str] = field(default_factory=dict)
    """By legend."""


def rate(metric: str, by: str = "") -> str:
    """A counter's rate a second, summed over processes."""
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))" if by else f"sum(rate({metric}[$__rate_interval]))"


def quantiles(
    histogram: str, by: str, *, of: tuple[float, ...] = QUANTILES, where: str = "", over: str = "$__rate_interval"
) -> dict[str, str]:
    """A histogram's quantiles, each over all processes."""
    inner = f"sum by (le, {by}) (rate({histogram}_bucket{where}[{over}]))"
    return {f"p{100 * share:g} {{{{{by}}}}}": f"histogram_quantile({share}, {inner})" for share in of}


def seen_by_all(metric: str, by: str) -> str:
    """A gauge that several processes report alike: each value once."""
    return f"max by ({by}) ({metric})"


FLEET = (
    Panel(
        "Places in use",
        "short",
        {
            "held {{model}}": f"sum by (model) ({seen_by_all('carillon_fleet_leases', 'model, worker')})",
            "spare places used {{model}}": (
                f"sum by (model) ({seen_by_all('carillon_fleet_background_leases', 'model, worker')})"
            ),
            "places {{model}}": f"sum by (model) ({seen_by_all('carillon_fleet_places', 'model, worker')})",
        },
    ),
    Panel("Workers", "short", {"{{model}} {{state}}": seen_by_all("carillon_fleet_workers", "model, state")}),
    Panel("Starts that wait", "short", {"{{model}}": "sum by (model) (carillon_starts_waiting)"}),
    Panel("Sessions open", "short", {"{{edge}}": "sum by (edge) (carillon_sessions_open)"}),
    Panel("Sessions ended", "reqps", {"{{edge}} {{outcome}}": rate("carillon_sessions_total", "edge, outcome")}),
    Panel("Refused", "reqps", {"{{code}}": rate("carillon_refused_total", "code")}),
    Panel("Errors of workers", "reqps", {"{{code}}": rate("carillon_worker_session_errors_total", "code")}),
    Panel("Real-time factor of a chunk", "none", quantiles("carillon_worker_real_time_factor", "pace")),
    Panel(
        "Tokens a second",
        "short",
        {
            "written": rate("carillon_worker_tokens_total"),
            "wasted by cancels": rate("carillon_worker_tokens_wasted_total"),
        },
    ),
    Panel("Key-value cache in use", "percentunit", {"{{instance}}": "carillon_worker_kv_cache_ratio"}),
    Panel(
        "Engine",
        "short",
        {
            "running {{instance}}": "carillon_worker_engine_running",
            "waiting {{instance}}": "carillon_worker_engine_waiting",
        },
    ),
    Panel(
        "Adapters",
        "ops",
        {
            "hits": rate("carillon_worker_adapter_hits_total"),
            "stalls": rate("carillon_worker_adapter_stalls_total"),
            "loads": rate("carillon_worker_adapter_loads_total"),
            "evictions": rate("carillon_worker_adapter_evictions_total"),
            "failures": rate("carillon_worker_adapter_failures_total"),
        },
    ),
    Panel(
        "A stall for an adapter",
        "s",
        {
            "mean": f"{rate('carillon_worker_adapter_stall_seconds_total')} / "
            f"{rate('carillon_worker_adapter_stalls_total')}"
        },
    ),
    Panel(
        "Adapter slots",
        "short",
        {
            "active {{instance}}": "carillon_worker_adapters_active",
            "slots {{instance}}": "carillon_worker_adapter_slots",
        },
    ),
    Panel("USD for an hour of audio", "currencyUSD", {"fleet": "carillon:usd_per_audio_hour"}),
    Panel("Connections", "short", {"{{instance}}": "carillon_connections_open"}),
)

LATENCY = (
    Panel("From the first text to the first audible sound", "s", quantiles("carillon_audible_ttfa_seconds", "edge")),
    Panel("First sounds in the money", "percentunit", {"{{edge}}": "carillon:in_the_money:ratio"}),
    Panel(
        "Where the first audio's time goes (median)",
        "s",
        quantiles("carillon_latency_seconds", "part", of=(0.5,), where='{part!~"total|first_audio"}'),
    ),
    Panel(
        "Where the first audio's time goes (p95)",
        "s",
        quantiles("carillon_latency_seconds", "part", of=(0.95,), where='{part!~"total|first_audio"}'),
    ),
    Panel(
        "Silence at the head",
        "s",
        quantiles("carillon_latency_seconds", "edge", where='{part="head_silence"}'),
    ),
    Panel("Gaps in a minute of audio", "short", {"{{edge}}": "60 * carillon:underruns:per_audio_second"}),
    Panel("Share of audio that was a gap", "percentunit", {"{{edge}}": "carillon:underrun:ratio"}),
    Panel("Moves to another worker", "ops", {"{{edge}}": rate("carillon_session_moves_total", "edge")}),
    Panel("Packets decoded too late", "ops", {"{{instance}}": rate("carillon_worker_late_pushes_total", "instance")}),
    Panel(
        "Codec at work", "percentunit", {"{{instance}}": rate("carillon_worker_decode_busy_seconds_total", "instance")}
    ),
    Panel("Event loop's lag", "s", quantiles("carillon_loop_lag_seconds", "job", of=(0.5, 0.99))),
    Panel("Audio made", "short", {"{{edge}}, seconds a second": rate("carillon_audio_seconds_total", "edge")}),
)

JOBS = (
    Panel("Jobs that are not over", "short", {"{{kind}} {{state}}": seen_by_all("carillon_jobs", "kind, state")}),
    Panel("Longest wait", "s", {"{{queue}}": seen_by_all("carillon_queue_oldest_seconds", "queue")}),
    Panel("Work that no process holds", "short", {"{{queue}}": seen_by_all("carillon_queue_jobs", "queue")}),
    Panel("Messages in the broker", "short", {"{{queue}}": seen_by_all("carillon_queue_messages", "queue")}),
    Panel(
        "Jobs ended in an hour",
        "short",
        {"{{kind}} {{state}}": "sum by (kind, state) (increase(carillon_job_seconds_count[1h]))"},
    ),
    Panel(
        "From a job's making to its end, of an hour's jobs",
        "s",
        quantiles("carillon_job_seconds", "kind", of=(0.5, 0.95), over="1h"),
    ),
    Panel(
        "Stages of clone jobs, of an hour's",
        "s",
        quantiles("carillon_job_stage_seconds", "stage", of=(0.5, 0.95), over="1h"),
    ),
    Panel(
        "Attempts after the first, in an hour",
        "short",
        {"{{kind}}": "sum by (kind) (increase(carillon_job_retries_total[1h]))"},
    ),
    Panel(
        "Gates in an hour",
        "short",
        {"{{result}}": "sum by (result) (increase(carillon_gate_results_total[1h]))"},
    ),
    Panel(
        "Why gates failed, in an hour",
        "short",
        {"{{figure}}": "sum by (figure) (increase(carillon_gate_failures_total[1h]))"},
    ),
    Panel("Tasks", "ops", {"{{task}} {{state}}": rate("carillon_task_seconds_count", "task, state")}),
    Panel("A task's time, of an hour's", "s", quantiles("carillon_task_seconds", "task", of=(0.5, 0.95), over="1h")),
)

PROJECTS = (
    Panel("Sessions open", "short", {"{{project}}": "sum by (project) (carillon_project_sessions_open)"}),
    Panel("Audio, seconds a second", "short", {"{{project}}": rate("carillon_project_audio_seconds_total", "project")}),
    Panel("Characters a second", "short", {"{{project}}": rate("carillon_project_characters_total", "project")}),
    Panel(
        "Hours of audio in a day",
        "h",
        {"{{project}}": "sum by (project) (increase(carillon_project_audio_seconds_total[1d])) / 3600"},
    ),
    Panel(
        "Refused for a limit", "ops", {"{{project}} {{code}}": rate("carillon_project_limited_total", "project, code")}
    ),
    Panel(
        "Sessions open, as a share of the fleet's places",
        "percentunit",
        {
            "{{project}}": "sum by (project) (carillon_project_sessions_open) "
            f"/ scalar(sum({seen_by_all('carillon_fleet_places', 'model, worker')}))"
        },
    ),
)

DASHBOARDS = {
    "carillon-fleet": ("Carillon: fleet", FLEET),
    "carillon-latency": ("Carillon: latency budget", LATENCY),
    "carillon-jobs": ("Carillon: jobs", JOBS),
    "carillon-projects": ("Carillon: projects", PROJECTS),
}


def build(uid: str, title: str, panels: tuple[Panel, ...]) -> str:
    """One dashboard as JSON."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .tags(["carillon"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for number, panel in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        board = board.with_panel(
            _chart(panel).grid_pos(models.GridPos(x=column * WIDTH, y=row * HEIGHT, w=WIDTH, h=HEIGHT))
        )
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _chart(panel: Panel) -> timeseries.Panel:
    chart = timeseries.Panel().title(panel.title).unit(panel.unit).datasource(SOURCE).min(0)
    for number, (legend, query) in enumerate(panel.queries.items()):
        chart = chart.with_target(
            prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number)).range()
        )
    return chart


def files() -> Iterator[tuple[Path, str]]:
    for uid, (title, panels) in DASHBOARDS.items():
        yield DIRECTORY / f"{uid}.json", build(uid, title, panels)


if __name__ == "__main__":
    for path, text in files():
        path.write_text(text, encoding="utf-8")
