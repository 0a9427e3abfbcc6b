"""What the command guard tells on `/diagnostics`, once a second."""

from __future__ import annotations

from fastvla_ros.diagnostics.status import Level, Status
from fastvla_ros.nodes.command_guard_rules import GuardReport


class GuardDiagnostics:
    """Compares each report with the one before: what grows is what somebody should look at."""

    def __init__(self) -> None:
        self._before: GuardReport | None = None

    def statuses(self, report: GuardReport) -> list[Status]:
        """One status: stopped, holding, dropping, limiting, passing or idle."""
        before, self._before = self._before or report, report
        level, message = _judge(report, before=before)
        return [
            Status(
                name="commands",
                level=level,
                message=message,
                values={
                    "latched": str(report.latched),
                    "reason": report.reason,
                    "commands_received": report.received,
                    "commands_limited": report.limited,
                    "commands_dropped": report.dropped,
                    "holds": report.holds,
                    "limited_joints": ", ".join(report.limited_joints),
                },
            )
        ]


def _judge(report: GuardReport, *, before: GuardReport) -> tuple[Level, str]:
    received, dropped = report.received - before.received, report.dropped - before.dropped
    limited = report.limited - before.limited
    if report.latched:
        return "ERROR", f"stopped: {report.reason}; ~/reset_stop releases it"
    if dropped:
        return "WARN", f"{dropped} of {received} commands were dropped; the log says why"
    if limited:
        joints = ", ".join(report.limited_joints)
        return "WARN", f"{limited} of {received} commands were limited ({joints})"
    if received:
        return "OK", f"{received} commands passed"
    return "OK", f"holds: {report.reason}" if report.reason else "no command comes"
