"""The files of docker compose, written from the environments: a service for each worker, between `plan` and `report`.

What is the same for all of them stands in a template beside this file, as do the comments.
"""

import json
import pathlib
import textwrap

from orchestrator.environments import definitions, images
from orchestrator.environments.definitions import IMAGES, Environment

BASE, GPU = "docker-compose.yml", "docker-compose.gpu.yml"

_WORKER = """\
  {service}:
    <<: *worker
    image: {image}
    pull_policy: build
{build}
    command: [/output/.consort/compose/{name}.json]
    working_dir: /output
    environment:
      <<: *variables
      CONSORT_SCRATCH: /output/.consort/scratch/compose-{name}
      CONSORT_EVENTS: /output/.consort/records/compose-{name}.1.jsonl{variables}"""
_BUILD = """\
    build:
      context: .
      dockerfile: {dockerfile}
      secrets: [{secrets}]
      args:
{arguments}"""
_END = "      {service}: {{condition: service_completed_successfully, required: false}}"
_WORKER_ON_GPU = """\
  {service}:
    <<: *gpu
    image: {image}
    build:
      args: {{{arguments}}}
    environment: {{NVIDIA_VISIBLE_DEVICES: "${{CONSORT_GPU:-0}}"}}"""


def texts() -> dict[str, str]:
    """Return the contents of docker-compose.yml and docker-compose.gpu.yml."""
    found = [definitions.find(name) for name in definitions.names()]
    ends = "\n".join(_END.format(service=service(one)) for one in found)
    able = [one for one in found if "cuda" in one.spec.locks]
    on_gpu = [_worker_on_gpu(one, before) for one, before in zip(able, [None, *able], strict=False)]
    return {
        BASE: _fill(
            BASE, host=images.HOST_TAG, build=_build(images.HOST), workers="\n\n".join(map(_worker, found)), ends=ends
        ),
        GPU: _fill(GPU, workers="\n\n".join(on_gpu)),
    }


def write(root: pathlib.Path = IMAGES.parent) -> list[pathlib.Path]:
    """Bring the files in `root` up to date; return those that were not."""
    changed = []
    for name, text in texts().items():
        path = root / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed


def service(environment: Environment) -> str:
    """Return the name of the service that runs an environment's worker."""
    return environment.spec.service or environment.name


def _worker(environment: Environment) -> str:
    made = images.definition(environment, "cpu")
    # also here, as with `extract`: those in the image may be of another day
    told = (_argument(*pair) for pair in environment.spec.variables.items())
    variables = "".join(f"\n      {line}" for line in told).replace("$", "$$")
    return _WORKER.format(
        service=service(environment), image=made.tag, build=_build(made), name=environment.name, variables=variables
    )


def _build(made: images.Build) -> str:
    """Return the section of a service that builds its image, as `docker build` of ours does."""
    given = {key: f"${{{variable}:-{default}}}" for key, (variable, default) in made.variables.items()}
    given.update({key: value.replace("$", "$$") for key, value in made.arguments.items() if value})
    arguments = textwrap.indent("\n".join(_argument(*pair) for pair in given.items()), 8 * " ")
    return _BUILD.format(dockerfile=made.dockerfile, secrets=", ".join(images.SECRETS), arguments=arguments)


def _worker_on_gpu(environment: Environment, before: Environment | None) -> str:
    cpu, cuda = (images.definition(environment, variant).arguments for variant in ("cpu", "cuda"))
    other = ", ".join(_argument(key, value) for key, value in cuda.items() if value != cpu[key])
    text = _WORKER_ON_GPU.format(service=service(environment), image=images.tag(environment, "cuda"), arguments=other)
    return text if before is None else f"{text}\n    depends_on:\n{_END.format(service=service(before))}"


def _argument(name: str, value: str) -> str:
    """Return an argument of a build as YAML; one of several lines as a block of them."""
    if "\n" in value:
        return f"{name}: |-\n{textwrap.indent(value, '  ')}"
    return f"{name}: {json.dumps(value)}"


def _fill(name: str, **parts: str) -> str:
    """Return a template with its parts; not by `format`, as compose has braces of its own."""
    template = pathlib.Path(__file__).with_name(name.replace(".yml", ".template.yml"))
    text = template.read_text("utf-8")
    for key, part in {"template": template.relative_to(IMAGES.parent).as_posix(), **parts}.items():
        text = text.replace(f"{{{key}}}", part)
    return text
