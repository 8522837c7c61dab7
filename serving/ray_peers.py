"""What one replica of the ingress asks of all of them: to reload, to tell their metrics, to say that they are ending.

Requests for these come to any one replica, but are meant for the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving.backend import ReloadReport
from serving.errors import ServingError

# The longest that is waited for replicas that do not answer, in seconds: loading a pair may take its time, telling
# metrics may not.
PATIENCE_S, TELLING_S = 60.0, 9.0


class Peers:
    """The replicas of the deployment that this process is a replica of, itself among them."""

    async def ask(self, method: str, *arguments: Any, patience_s: float = PATIENCE_S) -> list[Any]:
        """Return what a method of every replica returns; those that cannot be reached are left out.

        One that is gone has nothing to tell, and what takes its place begins with what is in production.

        Raises:
            TimeoutError: if one of them does not answer in time.
        """
        from ray import serve

        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        asked = handle.broadcast(method, *arguments)
        answers = await asked.results_async(timeout_s=patience_s, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, ServingError) or not isinstance(answer, Exception)]

    async def reload(self, experiment: str) -> ReloadReport:
        """Have every replica serve the pair that is in production now.

        Raises:
            ServingError: what kept one of them from it.
        """
        try:
            answers = await self.ask("reload_here", experiment)
        except TimeoutError as error:
            message = f"not all replicas of the ingress had reloaded after {PATIENCE_S:g} s; send the request again"
            raise ServingError(503, "reload_failed", message) from error
        reports: list[ReloadReport] = []
        for answer in answers:
            if isinstance(answer, ServingError):
                raise answer
            reports.append(answer)
        if not reports:
            raise ServingError(503, "reload_failed", "no replica of the ingress answers; send the request again")
        return next((report for report in reports if report.swapped), reports[0])


def merged(pages: Iterable[tuple[str, bytes]]) -> bytes:
    """Return pages of metrics as one, each replica's series under a label of its own.

    Parameters:
        pages: by replica, in Prometheus' text format. Series stay apart instead of being added up, because a sum would
            fall when a replica ends, which no counter may.
    """
    families: dict[str, list[str]] = {}
    for replica, page in pages:
        name = ""
        for line in page.decode().splitlines():
            if line.startswith("# HELP "):
                name = line
                families.setdefault(name, [])
            elif line.startswith("#"):
                if line not in families[name]:
                    families[name].append(line)
            else:
                families[name].append(_labelled(line, replica))
    return "".join(f"{head}\n" + "".join(f"{line}\n" for line in lines) for head, lines in families.items()).encode()


def _labelled(line: str, replica: str) -> str:
    """Return a sample with one more label."""
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{replica="{replica}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{replica="{replica}"}} {value}'
