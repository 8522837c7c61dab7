"""The stored files of a pair: written in native formats, logged to MLflow, and verified before anyone reads them.

Each registered model stores the folders it needs (`CONTENTS`). Two kinds of digests are kept in the registry: one per
folder that holds a fitted state, equal for equal bits, and one per file, over everything MLflow stored. A reader copies
the files to a place of its own, checks the copy against the digests, and reads that copy: what was checked is what is
read, and a file that is not on the list is never touched. Where signatures are asked for, the digests have to be those
that were signed, before anything is copied.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlplatform.models import save_model
from mlplatform.registry.digests import (
    DIGESTS,
    FROM_MLFLOW,
    combined_digest,
    file_digests,
    folder_digest,
    write_digests,
)
from mlplatform.registry.forecaster import CONTRACT_FILE, Forecaster
from mlplatform.registry.pairs.example import confirm_inference, differences, read_example, write_example
from mlplatform.registry.pairs.info import (
    ROLES,
    PairInfo,
    PairIntegrityError,
    PairUnreadableError,
    registered_model,
)
from mlplatform.registry.pairs.signature import signatures
from mlplatform.registry.pairs.signed import require_signature
from mlplatform.registry.tables import input_panel, prepared_table
from mlplatform.registry.tracking import open_tracking
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

    from mlplatform.datamodule import Float32

CODE = Path(__file__).parent.parent / "pyfunc_code"
PREPROCESSOR, MODEL, EXAMPLE, CARD = "preprocessor", "model", "example", "card"
# Role -> the folders it stores. The card stands outside every digest that is compared between two trainings.
CONTENTS = {
    "preprocessor": (PREPROCESSOR, DIGESTS),
    "model": (MODEL, DIGESTS),
    "forecaster": (PREPROCESSOR, MODEL, DIGESTS, EXAMPLE, CARD),
}


@dataclass(frozen=True)
class Fetch:
    """A place that stored models are copied from.

    Attributes:
        copy: copies a role's stored model into a folder, unchecked, and returns where it lies there.
        verify_keys: the public keys one of which has to have signed a pair before anything of it is read; see
            `require_signature`.
    """

    copy: Callable[[PairInfo, str, Path], Path]
    verify_keys: tuple[Path, ...]


@dataclass(frozen=True)
class Logged:
    """One role's model as MLflow stored it.

    Attributes:
        uri, model_id: MLflow's address and id of it.
        digest: SHA-256 over the fitted state in it.
        files: SHA-256 of every stored file by its path.
    """

    uri: str
    model_id: str
    digest: str
    files: Mapping[str, str]


def write_folders(folder: Path, forecaster: Forecaster, family: str, example: pd.DataFrame) -> None:
    """Write preprocessor, model and example below `folder`, and prove that they can be read back.

    Raises:
        PairIntegrityError: if what was written answers the example with other bits than what was fitted.
    """
    preprocessor, model = folder / PREPROCESSOR, folder / MODEL
    preprocessor.mkdir()
    forecaster.preprocessor.save(preprocessor)
    save_model(forecaster.model, family, model)
    for path in (preprocessor, model):
        (path / CONTRACT_FILE).write_text(forecaster.contract.to_json())
    answer = forecaster.predict(input_panel(forecaster.contract, example))
    stored = Forecaster.load(preprocessor, model)
    confirm_inference(stored, example)
    if wrong := differences(stored, example, answer):
        raise PairIntegrityError(
            f"the pair of {forecaster.contract.experiment!r} does not survive being stored: {'; '.join(wrong)}. The "
            f"family {family!r} or a transform saves less than it fitted"
        )
    write_example(folder / EXAMPLE, example, answer)
    write_digests(folder / DIGESTS, state_digests(folder))


def state_digests(folder: Path) -> dict[str, str]:
    """Return the digest of each role's fitted state among the folders that `write_folders` wrote."""
    both = {name: folder_digest(folder / name) for name in (PREPROCESSOR, MODEL)}
    return {**both, "forecaster": combined_digest(both)}


def log_roles(
    settings: Settings, run_id: str, folder: Path, forecaster: Forecaster, example: pd.DataFrame
) -> dict[str, Logged]:
    """Log the three pyfuncs to an MLflow run and read back what was stored.

    Raises:
        PairIntegrityError: if MLflow stored other bits than were given to it.
    """
    import mlflow

    open_tracking(settings)
    prepared = prepared_table(forecaster.contract, forecaster.preprocessor, example)
    schemas = signatures(forecaster.contract, example, prepared, forecaster.coverages)
    digests, logged = state_digests(folder), {}
    with _run(run_id):
        for role in ROLES:
            given = {name: folder / name for name in CONTENTS[role]}
            info = _log(role, given, schemas[role], prepared if role == "model" else example)
            # By its place: by its name, MLflow would add a file to it.
            place = mlflow.get_logged_model(info.model_id).artifact_location
            stored = file_digests(Path(mlflow.artifacts.download_artifacts(place)))
            sent = {f"artifacts/{name}/{path}": value for name in given for path, value in _digests(given[name])}
            if differing := _compared(stored, sent, allow_more=True):
                raise PairIntegrityError(f"MLflow stored something else than the {role}'s files: {differing}")
            logged[role] = Logged(info.model_uri, info.model_id, digests[role], stored)
    return logged


@contextlib.contextmanager
def verified_copy(fetch: Fetch, info: PairInfo, role: str) -> Iterator[Path]:
    """Yield a private copy of the folders that a role stores, checked file by file; it is deleted afterwards.

    Raises:
        PairIntegrityError: naming the files that are missing, were changed or were added, or if the pair lacks the
            signature that it needs.
        PairUnreadableError: if nothing can be read now.
    """
    from mlflow.exceptions import MlflowException

    require_signature(info, fetch.verify_keys)
    model = registered_model(info.name, role)
    with tempfile.TemporaryDirectory() as place:
        try:
            folder = fetch.copy(info, role, Path(place))
        except (MlflowException, OSError) as error:
            raise PairUnreadableError(
                f"the artifacts of {model} version {info.version} cannot be read: {error}"
            ) from error
        if differing := _compared(file_digests(folder), info.files[role]):
            raise PairIntegrityError(
                f"the artifacts of {model} version {info.version} were changed after registration: {differing}. Roll "
                "back to another version or train again"
            )
        yield folder / "artifacts"


def load_pair(fetch: Fetch, info: PairInfo) -> Forecaster:
    """Return the pair that `load_with_example` reads; raises as it does."""
    return load_with_example(fetch, info).forecaster


class PairWithExample(NamedTuple):
    """A pair, its stored input example, and the answer it gave when it was registered."""

    forecaster: Forecaster
    rows: pd.DataFrame
    answer: Float32


def load_with_example(fetch: Fetch, info: PairInfo) -> PairWithExample:
    """Read a pair's artifacts, verifying signature and digests before anything is deserialised.

    A model that has a faster way of answering was compared with itself as fitted on the pair's stored example; its
    `inference` says which of the two answers.

    Raises:
        PairIntegrityError: as `verified_copy` does.
        PairUnreadableError: if nothing can be read now.
    """
    with verified_copy(fetch, info, "preprocessor") as preprocessor, verified_copy(fetch, info, "model") as model:
        forecaster = Forecaster.load(preprocessor / PREPROCESSOR, model / MODEL)
    rows, answer = stored_example(fetch, info)
    confirm_inference(forecaster, rows)
    return PairWithExample(forecaster, rows, answer)


def stored_example(fetch: Fetch, info: PairInfo) -> tuple[pd.DataFrame, Float32]:
    """Return the stored input example and the answer the pair gave when it was registered; raises as `load_pair`."""
    with verified_copy(fetch, info, "forecaster") as folder:
        return read_example(folder / EXAMPLE)


def fetch_from_registry(settings: Settings, client: MlflowClient, info: PairInfo, role: str, place: Path) -> Path:
    """Copy a role's stored model from where the registry says it lies into the folder `place`."""
    import mlflow

    open_tracking(settings)
    uri = client.get_model_version_download_uri(registered_model(info.name, role), str(info.version))
    address = urlsplit(uri)
    if address.scheme not in ("", "file"):
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(place)))
    # MLflow would start a pool of threads for a handful of small files.
    return shutil.copytree(url2pathname(address.path), place / "copy")


def _compared(found: Mapping[str, str], expected: Mapping[str, str], *, allow_more: bool = False) -> str:
    """Say which files differ from what was expected; empty if none."""
    problems = [
        f"{path} is missing" if path not in found else f"{path} has SHA-256 {found[path]} instead of {value}"
        for path, value in sorted(expected.items())
        if found.get(path) != value
    ]
    if not allow_more:
        problems += [f"{path} was added" for path in sorted(set(found) - set(expected) - FROM_MLFLOW)]
    return "; ".join(problems)


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    yield from file_digests(folder).items()


def _log(role: str, folders: Mapping[str, Path], signature: Any, example: pd.DataFrame) -> Any:
    """Log one pyfunc to the active run and return MLflow's description of it."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        # MLflow names the stored code after the file, so every role gets a file of its own.
        code = shutil.copy(CODE / f"{role}.py", Path(folder) / f"{role}.py")
        return mlflow.pyfunc.log_model(
            name=role,
            python_model=str(code),
            artifacts={key: str(path) for key, path in folders.items()},
            signature=signature,
            input_example=example,
            # Spelled out: MLflow would otherwise start a process to find out by importing everything.
            pip_requirements=[f"mlplatform=={installed_version('mlplatform')}"],
        )


def _run(run_id: str) -> Any:
    import mlflow

    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        return contextlib.nullcontext()
    # MLflow refuses to reopen a run of another experiment than the one this process worked on last.
    mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
    return mlflow.start_run(run_id=run_id, nested=active is not None)
