"""Where the platform keeps its state and which servers it talks to, read from environment variables.

This is the only module that reads the process environment for paths and addresses. Everything local lives under one
folder, `MLPLATFORM_HOME`; deleting that folder resets the platform. Secrets are read here too and are never part of
`repr`, so they cannot reach a log or asset metadata by accident.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

PACKAGE_ROOT = Path(__file__).resolve().parent
PACKAGED_CONF = PACKAGE_ROOT / "conf"
PLUGINS_VARIABLE = "MLPLATFORM_PLUGINS"
SIGNING_KEY, SIGNING_KEY_PASSWORD = "MLPLATFORM_SIGNING_KEY", "MLPLATFORM_SIGNING_KEY_PASSWORD"
VERIFY_KEY = "MLPLATFORM_VERIFY_KEY"
# Instead of names of experiments: all there are.
EVERY = "*"

_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)
_SQLITE = "sqlite:///"
# The same, with the driver named. MLflow creates the folder that an address of the first form seems to name, taking its
# escapes for letters.
_SQLITE_ESCAPED = "sqlite+pysqlite:///"


class AddressError(ValueError):
    """A folder whose name a library cannot keep apart from the rest of an address."""


@dataclass(frozen=True)
class ServerLimits:
    """What bounds a prediction server's work; times in seconds.

    Attributes:
        max_requests: prediction requests worked for at once, waiting ones included; what is beyond is refused (429).
        deadline_s: from the admission of a request to its answer; past it the request is refused (503).
        store_deadline_s: the same for a read of the online store.
        body_deadline_s: for a request's head, and for its body, to arrive.
        poll_s: between two looks at the production alias; 0 leaves reloads to those who ask for them.
        rate: requests per second that each token, or without tokens each address, may send; 0 for any number.
        burst: how many of them may come at once; by default those of a second.
        drain_s: between the moment the server says that it is not ready and its end, for load balancers to notice.
    """

    max_requests: int = 64
    deadline_s: float = 10.0
    store_deadline_s: float = 2.0
    body_deadline_s: float = 15.0
    poll_s: float = 15.0
    drain_s: float = 0.0
    rate: float = 0.0
    burst: int | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServerLimits:
        """Read the limits from the environment."""
        return cls(
            max_requests=_positive_int(env, "MLPLATFORM_MAX_REQUESTS", cls.max_requests),
            deadline_s=_seconds(env, "MLPLATFORM_DEADLINE_S", cls.deadline_s),
            store_deadline_s=_seconds(env, "MLPLATFORM_STORE_DEADLINE_S", cls.store_deadline_s),
            body_deadline_s=_seconds(env, "MLPLATFORM_BODY_DEADLINE_S", cls.body_deadline_s),
            poll_s=_seconds(env, "MLPLATFORM_POLL_S", cls.poll_s, can_be_zero=True),
            drain_s=_seconds(env, "MLPLATFORM_DRAIN_S", cls.drain_s, can_be_zero=True),
            rate=_rate(env, "MLPLATFORM_RATE_LIMIT", cls.rate),
            burst=_optional_positive_int(env, "MLPLATFORM_RATE_BURST"),
        )


@dataclass(frozen=True)
class Settings:
    """Paths and addresses of one installation.

    Attributes:
        home: folder of all local state.
        data_dir: folder against which relative `source.uri` paths are resolved, if set.
        conf_dir: folder of user configuration, searched before the packaged one, if set.
        has_examples: whether the packaged experiments and datasets are shown; the packaged groups always are.
        mlflow_tracking_uri: MLflow tracking and registry server, or a local SQLite file.
        mlflow_artifact_root: where MLflow stores the artifacts of new experiments.
        serving_url: address that promotion tells to reload, or several separated by commas.
        serving_host, serving_port: where a prediction server listens.
        probe_port: where a server without Ray answers probes alone, beside its port.
        experiment: experiment that the prediction server answers for where a request names none.
        experiments: further ones that it serves; `*` stands for all there are.
        serving_config: option of the configuration group `serving`: the deployments on Ray Serve.
        alerts_config: option of the configuration group `alerts`: who is told of what.
        dagster_url: address of the Dagster page, which alerts link to and the platform API launches runs through.
        limits: what bounds its work.
        admin_token: bearer token of the admin routes; admin routes are closed while it is unset.
        api_tokens: bearer tokens, one of which every other request has to have; none is asked for while there are none.
        tls_certificate, tls_key: PEM files with which a prediction server speaks HTTPS.
        redis_url: Redis server of the online feature store; SQLite while it is unset.
        feast_registry: database of Feast's registry, as an address of SQLAlchemy; a file while it is unset.
        prediction_log_url: PostgreSQL database of the prediction log, as an address of SQLAlchemy; files while it is
            unset.
        prediction_log_retention_days: days that the prediction log is kept; for ever while it is unset.
        dvc_remote: folder or address (s3://...) that split files are pushed to; nowhere while it is unset.
        max_body_bytes: largest request body the prediction server accepts.
        workers: processes of a prediction server without Ray.
        access_log: share of its requests that get a line in its log, 0 to 1.
        signing_key: PEM file of the private key that signs the pairs that are registered here; unsigned while unset.
        signing_key_password: its password.
        verify_keys: PEM files of public keys, and folders of them. If there are any, no pair is read unless one of
            them signed it.
    """

    home: Path
    data_dir: Path | None
    conf_dir: Path | None
    mlflow_tracking_uri: str = field(repr=False)  # the address of a database holds its password
    mlflow_artifact_root: str
    serving_url: str
    serving_host: str
    serving_port: int
    experiment: str
    max_body_bytes: int
    admin_token: str | None = field(default=None, repr=False)
    api_tokens: tuple[str, ...] = field(default=(), repr=False)
    redis_url: str | None = field(default=None, repr=False)
    feast_registry: str | None = field(default=None, repr=False)
    dvc_remote: str | None = field(default=None, repr=False)
    prediction_log_url: str | None = field(default=None, repr=False)
    prediction_log_retention_days: int | None = None
    experiments: tuple[str, ...] = ()
    serving_config: str = "default"
    alerts_config: str = "default"
    dagster_url: str = "http://127.0.0.1:3000"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    limits: ServerLimits = field(default_factory=ServerLimits)
    access_log: float = 0.0
    workers: int = 1
    probe_port: int | None = None
    signing_key: Path | None = field(default=None, repr=False)
    signing_key_password: str | None = field(default=None, repr=False)
    verify_keys: tuple[Path, ...] = ()
    has_examples: bool = True

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ` (default: the process environment); an empty variable counts as unset."""
        env = os.environ if environ is None else environ
        home = Path(env.get("MLPLATFORM_HOME") or ".mlplatform").expanduser().resolve()
        experiments = _names(env.get("MLPLATFORM_EXPERIMENTS", ""))
        named = next((name for name in experiments if name != EVERY), "fleet_xgboost")
        return cls(
            home=home,
            data_dir=_optional_path(env.get("MLPLATFORM_DATA_DIR")),
            conf_dir=_optional_path(env.get("MLPLATFORM_CONF_DIR")),
            mlflow_tracking_uri=env.get("MLFLOW_TRACKING_URI") or sqlite_address(home / "mlflow" / "mlflow.db"),
            mlflow_artifact_root=env.get("MLPLATFORM_ARTIFACT_ROOT") or (home / "mlflow" / "artifacts").as_uri(),
            serving_url=(env.get("MLPLATFORM_SERVING_URL") or "http://127.0.0.1:8000").rstrip("/"),
            serving_host=env.get("MLPLATFORM_HOST") or "127.0.0.1",
            serving_port=_positive_int(env, "MLPLATFORM_PORT", 8000),
            experiment=env.get("MLPLATFORM_EXPERIMENT") or named,
            max_body_bytes=_positive_int(env, "MLPLATFORM_MAX_BODY_BYTES", 1_048_576),
            admin_token=env.get("MLPLATFORM_ADMIN_TOKEN") or None,
            api_tokens=_names(env.get("MLPLATFORM_API_TOKENS", "")),
            tls_certificate=_optional_path(env.get("MLPLATFORM_TLS_CERTIFICATE")),
            tls_key=_optional_path(env.get("MLPLATFORM_TLS_KEY")),
            redis_url=env.get("MLPLATFORM_REDIS_URL") or None,
            feast_registry=env.get("MLPLATFORM_FEAST_REGISTRY") or None,
            dvc_remote=env.get("MLPLATFORM_DVC_REMOTE") or None,
            prediction_log_url=env.get("MLPLATFORM_PREDICTION_LOG_URL") or None,
            prediction_log_retention_days=_optional_positive_int(env, "MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS"),
            experiments=experiments,
            serving_config=env.get("MLPLATFORM_SERVING_CONFIG") or "default",
            alerts_config=env.get("MLPLATFORM_ALERTS_CONFIG") or "default",
            dagster_url=(env.get("MLPLATFORM_DAGSTER_URL") or cls.dagster_url).rstrip("/"),
            limits=ServerLimits.from_env(env),
            workers=_positive_int(env, "MLPLATFORM_WORKERS", cls.workers),
            probe_port=_optional_positive_int(env, "MLPLATFORM_PROBE_PORT"),
            access_log=_share(env, "MLPLATFORM_ACCESS_LOG", cls.access_log),
            signing_key=next(iter(_key_paths(env, SIGNING_KEY)), None),
            signing_key_password=env.get(SIGNING_KEY_PASSWORD) or None,
            verify_keys=_key_paths(env, VERIFY_KEY),
            has_examples=_switch(env, "MLPLATFORM_EXAMPLES", default=True),
        )

    def without_signing_key(self) -> Settings:
        """Return the settings of a process that only reads pairs."""
        return replace(self, signing_key=None, signing_key_password=None)

    @property
    def serving_addresses(self) -> tuple[str, ...]:
        """The addresses of `serving_url`, one by one."""
        addresses = (address.strip() for address in self.serving_url.split(","))
        return tuple(address for address in addresses if address)

    @property
    def raw_dir(self) -> Path:
        """Validated raw tables and their quarantine files, one folder per dataset."""
        return self.home / "data" / "raw"

    @property
    def features_dir(self) -> Path:
        """Parquet files behind the Feast offline store, one folder per dataset."""
        return self.home / "data" / "features"

    @property
    def splits_dir(self) -> Path:
        """Train, reference and test files: `<dataset>/<split version>/`. The folder is a DVC repository."""
        return self.home / "data" / "splits"

    @property
    def assets_dir(self) -> Path:
        """Outputs of Dagster's IO manager."""
        return self.home / "assets"

    @property
    def feast_dir(self) -> Path:
        """Feast's registry and SQLite online store."""
        return self.home / "feast"

    @property
    def studies_dir(self) -> Path:
        """Optuna journals, one file per training run."""
        return self.home / "optuna"

    @property
    def checkpoints_dir(self) -> Path:
        """What interrupted training runs go on from: `<experiment>/<inputs of the run>/`."""
        return self.home / "checkpoints"

    @property
    def predictions_dir(self) -> Path:
        """Served predictions, one folder per experiment."""
        return self.home / "predictions"

    @property
    def forecasts_dir(self) -> Path:
        """Forecasts in batch, one folder per experiment."""
        return self.home / "forecasts"

    @property
    def forecast_errors_dir(self) -> Path:
        """Predictions joined with what happened, one folder per experiment."""
        return self.home / "forecast_errors"

    @property
    def feedback_dir(self) -> Path:
        """Labels that arrived at servers, one folder per experiment."""
        return self.home / "feedback"

    @property
    def active_config_dir(self) -> Path:
        """`<experiment>/active_config.yaml`: the versions of the last promoted training run."""
        return self.home / "active"

    @property
    def downloads_dir(self) -> Path:
        """Files fetched by a source that names a download address."""
        return self.home / "downloads"

    @property
    def served_pairs_dir(self) -> Path:
        """The pairs that a server loaded last, one folder per experiment, for a start without the registry."""
        return self.home / "serving" / "pairs"

    @property
    def replica_pairs_dir(self) -> Path:
        """The same for replicas on Ray Serve, which load what they are asked for, in production or not."""
        return self.home / "serving" / "replicas"

    @property
    def served_feast_registry(self) -> Path:
        """Feast's registry as a server read it last, for a start without it."""
        return self.home / "serving" / "feast" / "registry.db"

    @property
    def served_challengers_dir(self) -> Path:
        """The same for the pairs that challenge those in production."""
        return self.home / "serving" / "challengers"

    def training_log(self, experiment: str) -> Path:
        """What the last training of an experiment that a command started said."""
        return self.home / "runs" / f"train_{experiment}.log"

    @property
    def conf_dirs(self) -> tuple[Path, ...]:
        """Configuration folders, most specific first."""
        return (*([self.conf_dir] if self.conf_dir else []), PACKAGED_CONF)


def sqlite_address(path: Path) -> str:
    """Return the SQLAlchemy address of a SQLite file, which `sqlite_file` and every engine lead back to this very path.

    What an address gives a meaning (`?` begins its options, `%41` is an `A`) is escaped; other paths stay as they are.
    """
    name = str(path.absolute())
    return f"{_SQLITE_ESCAPED}{quote(name)}" if _is_ambiguous(name) else f"{_SQLITE}{name}"


def sqlite_file(address: str) -> Path | None:
    """Return the file that a SQLAlchemy address of SQLite names; `None` for databases that are no such file."""
    for prefix in (_SQLITE, _SQLITE_ESCAPED):
        name = unquote(address.removeprefix(prefix).partition("?")[0])
        if address.startswith(prefix) and name not in ("", ":memory:"):
            return Path(name)
    return None


def without_credentials(text: str) -> str:
    """Return a text without the users and passwords of the addresses in it."""
    return _CREDENTIALS.sub(r"\1***@", text)


def check_dagster_home(environ: Mapping[str, str] | None = None) -> None:
    """Refuse a `DAGSTER_HOME` that Dagster would keep its databases outside of.

    Dagster writes the path into an address as it stands: `a?b` puts its databases into one file `a`, and `%41` into a
    folder `A`.

    Raises:
        AddressError: if the path has a `?`, or a `%` with two hexadecimal digits.
    """
    folder = (os.environ if environ is None else environ).get("DAGSTER_HOME") or ""
    if _is_ambiguous(folder):
        raise AddressError(
            f"DAGSTER_HOME is {folder!r}, but Dagster takes a '?' and a '%' with two hexadecimal digits for parts of "
            "an address and would keep its databases elsewhere; set DAGSTER_HOME to a folder without them "
            "(MLPLATFORM_HOME may keep its name)"
        )


def plugin_modules() -> tuple[str, ...]:
    """Return the dotted names of the plug-in modules that `MLPLATFORM_PLUGINS` names, separated by commas.

    Not one of the settings: plug-ins belong to the process, and so does its environment, which child processes inherit.
    """
    return _names(os.environ.get(PLUGINS_VARIABLE, ""))


def secret_from_env(name: str) -> str | None:
    """Return the environment variable that configuration names for a credential, `None` if it is unset or empty."""
    return os.environ.get(name) or None


def _is_ambiguous(path: str) -> bool:
    """Return whether an address that holds the path as it stands would name another one."""
    return "?" in path or unquote(path) != path


def _optional_path(value: str | None) -> Path | None:
    return Path(value).expanduser().resolve() if value else None


def _key_paths(env: Mapping[str, str], name: str) -> tuple[Path, ...]:
    """Return the paths that a variable of keys names. Links are left as they are: a rotation may change their ends."""
    text = env.get(name)
    if not text:
        return ()
    parts = text.split(os.pathsep) if name == VERIFY_KEY else [text]
    if not all(part.strip() for part in parts):
        # Whoever set it wants signatures; an empty part must not end in a server that asks for none.
        raise ValueError(f"{name} must name files, but is {text!r}")
    return tuple(Path(part).expanduser().absolute() for part in parts)


def _names(text: str) -> tuple[str, ...]:
    """Return the names of a list separated by commas, each once."""
    names = (name.strip() for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def _seconds(env: Mapping[str, str], name: str, default: float, *, can_be_zero: bool = False) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and (seconds > 0 or (can_be_zero and seconds == 0))):
        expected = "a number of seconds, 0 or more" if can_be_zero else "a number of seconds above 0"
        raise ValueError(f"{name} must be {expected}, but is {text!r}")
    return seconds


def _rate(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise ValueError(f"{name} must be a number of requests per second, 0 or more, but is {text!r}")
    return rate


def _share(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, but is {text!r}")
    return share


def _switch(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name)
    if not text:
        return default
    if text not in ("0", "1"):
        raise ValueError(f"{name} must be 0 or 1, but is {text!r}")
    return text == "1"


def _optional_positive_int(env: Mapping[str, str], name: str) -> int | None:
    return _positive_int(env, name, 1) if env.get(name) else None


def _positive_int(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name)
    if not text:
        return default
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{name} must be a positive whole number, but is {text!r}")
    return int(text)
