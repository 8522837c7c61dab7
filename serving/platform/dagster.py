"""Dagster's GraphQL: launching a job's run, and asking what became of it. All calls block, within a time."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import ServingError

TIMEOUT_S = 15.0

_JOBS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } jobs { name } } } } }"
_RUN = "runId jobName status creationTime startTime endTime tags { key value }"
_ONE = f"query($id: ID!) {{ runOrError(runId: $id) {{ __typename ... on Run {{ {_RUN} }} }} }}"
_TAGGED = f"""query($filter: RunsFilter!) {{
  runsOrError(filter: $filter, limit: 1) {{ ... on Runs {{ results {{ {_RUN} }} }} }}
}}"""
_LAUNCH = f"""mutation($params: ExecutionParams!) {{
  launchRun(executionParams: $params) {{
    __typename
    ... on LaunchRunSuccess {{ run {{ {_RUN} }} }}
    ... on RunConfigValidationInvalid {{ errors {{ message }} }}
    ... on Error {{ message }}
  }}
}}"""


@dataclass(frozen=True)
class LaunchedRun:
    """A run as Dagster knows it; times in seconds since 1970."""

    run_id: str
    job: str
    status: str
    created: float | None
    started: float | None
    ended: float | None
    tags: Mapping[str, str]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> LaunchedRun:
        """Return what a query found."""
        tags = {tag["key"]: tag["value"] for tag in found["tags"]}
        times = (found.get("creationTime"), found.get("startTime"), found.get("endTime"))
        return cls(found["runId"], found["jobName"], found["status"], *times, tags)


class DagsterClient:
    """Asks one Dagster webserver.

    Parameters:
        url: its address.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/graphql"
        self._address = url

    def launch(self, job: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> LaunchedRun:
        """Launch a run of a job.

        Raises:
            ServingError: 503 if Dagster does not answer or has no such job, 422 if it refuses the configuration.
        """
        repository, location = self._place_of(job)
        params = {
            "selector": {"repositoryName": repository, "repositoryLocationName": location, "jobName": job},
            "runConfigData": json.dumps(config),
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = self._ask(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] == "LaunchRunSuccess":
            return LaunchedRun.of(answer["run"])
        reasons = [each["message"] for each in answer.get("errors", [])] or [answer.get("message", "")]
        kind = answer["__typename"]
        if kind == "RunConfigValidationInvalid":
            raise ServingError(422, "run_refused", f"Dagster refuses the run of {job}: {'; '.join(reasons)}")
        raise ServingError(503, "launch_failed", f"Dagster could not launch {job} ({kind}); its page says why")

    def run(self, run_id: str) -> LaunchedRun | None:
        """Return a run; `None` if there is none.

        Raises:
            ServingError: 503 if Dagster does not answer.
        """
        answer = self._ask(_ONE, {"id": run_id})["runOrError"]
        return LaunchedRun.of(answer) if answer["__typename"] == "Run" else None

    def tagged(self, key: str, value: str) -> LaunchedRun | None:
        """Return the newest run with a tag; `None` if there is none.

        Raises:
            ServingError: 503 if Dagster does not answer.
        """
        answer = self._ask(_TAGGED, {"filter": {"tags": [{"key": key, "value": value}]}})["runsOrError"]
        results = answer.get("results") or []
        return LaunchedRun.of(results[0]) if results else None

    def _place_of(self, job: str) -> tuple[str, str]:
        nodes = self._ask(_JOBS, {})["repositoriesOrError"].get("nodes") or []
        for node in nodes:
            if any(each["name"] == job for each in node["jobs"]):
                return node["name"], node["location"]["name"]
        found = f"the Dagster at {self._address} has no job {job}"
        raise _unavailable(f"{found}; reload its code location, or see MLPLATFORM_DAGSTER_URL")

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        if not self._url.startswith(("http://", "https://")):
            raise _unavailable(f"MLPLATFORM_DAGSTER_URL is {self._address!r}, which is no http address; correct it")
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            self._url, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
                answer = json.load(response)
        # What answers at the address may be no Dagster, and the address no address.
        except (OSError, ValueError, http.client.HTTPException) as error:
            found = f"no Dagster answers at {self._address} ({type(error).__name__})"
            raise _unavailable(f"{found}; start it, or see MLPLATFORM_DAGSTER_URL") from error
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, dict):
            found = f"what answers at {self._address} is no Dagster of this version"
            raise _unavailable(f"{found}; see MLPLATFORM_DAGSTER_URL")
        return data


def _unavailable(message: str) -> ServingError:
    return ServingError(503, "dagster_unavailable", message, headers={"retry-after": "5"})
