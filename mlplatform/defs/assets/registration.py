"""The registered pair: preprocessor, model and forecaster under one MLflow version, behind the alias `staging`."""

from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, MetadataValue

from mlplatform.candidates import Candidate
from mlplatform.config import ExperimentConfig
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import ONLINE_FEATURES, REGISTERED_PAIR, TUNED_MODEL, asset_key
from mlplatform.defs.metadata import run_link
from mlplatform.defs.resources import MlflowResource, PlatformResource
from mlplatform.defs.versions import data_version


def registered_pair_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the registered-pair asset of an experiment."""

    @owned_asset(
        experiment,
        REGISTERED_PAIR,
        reads=(TUNED_MODEL,),
        # Not read here, but the check serving_parity on this asset compares with what is online.
        after=[asset_key(experiment.dataset.name, ONLINE_FEATURES)],
        kinds={"mlflow"},
        description="Preprocessor, model and forecaster registered under one version number.",
    )
    def registered_pair(
        context: AssetExecutionContext, platform: PlatformResource, mlflow: MlflowResource, tuned_model: Candidate
    ) -> MaterializeResult[None]:
        from mlplatform.datamodule import REFERENCE, read_manifest, read_part
        from mlplatform.promotion import prepare_clean_process
        from mlplatform.registry import Contract, Forecaster
        from mlplatform.registry.pairs import PairStore, example_rows

        settings, config = platform.settings, tuned_model.config
        # The check pair_integrity comes next; its process imports while this one registers.
        prepare_clean_process(settings)
        manifest = read_manifest(settings, config.dataset.name, config.split.version_id)
        contract = Contract.for_experiment(config, tuned_model.manager, manifest.planned)
        forecaster = Forecaster(contract, tuned_model.manager, tuned_model.model)
        reference = read_part(settings, config.dataset.name, config.split.version_id, REFERENCE)
        with mlflow.run(context, settings, config.name, tuned_model.run_id):
            info = PairStore(settings).register(
                config.registered_name,
                forecaster,
                config.model.family,
                tuned_model.run_id,
                example=example_rows(contract, reference),
                tags=config.versions,
                who=f"Dagster run {context.run.run_id}",
            )
        return MaterializeResult(
            data_version=data_version(info.pair_id),
            metadata={
                "version": info.version,
                "pair_id": info.pair_id,
                "mlflow_run": run_link(settings, config.name, info.run_id),
                "preprocessor_sha256": info.preprocessor_digest,
                "model_sha256": info.model_digest,
                "contract": MetadataValue.json(vars(contract)),
                **config.versions,
            },
        )

    return registered_pair
