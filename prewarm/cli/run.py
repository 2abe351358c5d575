"""`prewarm run`: the controller."""

from prewarm.cli.errors import usage
from prewarm.cli.options import Context, Kubeconfig


def run(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Run the controller. Its settings are environment variables that start with PREWARM_."""
    from pydantic import ValidationError

    from prewarm.controller.main import run as run_controller
    from prewarm.controller.settings import Settings

    typed = {name: value for name, value in (("kubeconfig", kubeconfig), ("context", context)) if value is not None}
    try:
        settings = Settings.model_validate({**Settings().model_dump(exclude_unset=True), **typed})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        variable = name if name.startswith("PREWARM_") else f"PREWARM_{name}"
        raise usage(f"{variable}: {first['msg']}") from None
    run_controller(settings)
