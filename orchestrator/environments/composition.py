"""The files of docker compose, written from the environments: a service for each worker, between `plan` and `report`.

What is the same for all of them stands in a template beside this file, as do the comments.
"""

import json
import pathlib
import typing as tp

from orchestrator.environments import definitions, images
from orchestrator.environments.definitions import IMAGES, Environment

BASE, GPU = "docker-compose.yml", "docker-compose.gpu.yml"

_WORKER = """\
  {service}:
    <<: *worker
    image: {image}
    build:
      <<: *image
      args:
{arguments}
    command: [/output/.consort/compose/{name}.json]
    working_dir: /output/.consort/scratch/compose-{name}
    environment:
      <<: *variables
      CONSORT_SCRATCH: /output/.consort/scratch/compose-{name}
      CONSORT_EVENTS: /output/.consort/records/compose-{name}.1.jsonl"""
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
    before = [None, *able]
    on_gpu = [_worker_on_gpu(one, first) for one, first in zip(able, before, strict=False)]
    return {
        BASE: _fill(BASE, workers="\n\n".join(map(_worker, found)), ends=ends),
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
    bases = {
        "BASE_IMAGE": f"${{{images.base_variable(environment)}:-{environment.spec.base_image}}}",
        "TOOLS_IMAGE": "${CONSORT_BASE_IMAGE_3_11:-python:3.11-slim-bookworm}",
    }
    given = {**bases, **{k: v.replace("$", "$$") for k, v in images.arguments(environment, "cpu").items() if v}}
    return _WORKER.format(
        service=service(environment),
        image=images.tag(environment, "cpu"),
        arguments="\n".join(line for pair in given.items() for line in _lines(*pair)),
        name=environment.name,
    )


def _worker_on_gpu(environment: Environment, before: Environment | None) -> str:
    cpu, cuda = (images.arguments(environment, variant) for variant in ("cpu", "cuda"))
    other = ", ".join(f"{key}: {_text(value)}" for key, value in cuda.items() if value != cpu[key])
    text = _WORKER_ON_GPU.format(service=service(environment), image=images.tag(environment, "cuda"), arguments=other)
    return text if before is None else f"{text}\n    depends_on:\n{_END.format(service=service(before))}"


def _lines(key: str, value: str) -> tp.Iterator[str]:
    """Yield an argument of a build as YAML; one of several lines as a block of them."""
    first, *others = value.split("\n")
    if not others:
        yield f"        {key}: {_text(value)}"
    else:
        yield f"        {key}: |-"
        yield from (f"          {line}" for line in (first, *others))


def _text(value: str) -> str:
    """Return a text as YAML; every JSON string is one."""
    return json.dumps(value)


def _fill(name: str, **parts: str) -> str:
    """Return a template with its parts; not by `format`, as compose has braces of its own."""
    template = pathlib.Path(__file__).with_name(name.replace(".yml", ".template.yml"))
    text = template.read_text("utf-8")
    for key, part in {"template": template.relative_to(IMAGES.parent).as_posix(), **parts}.items():
        text = text.replace(f"{{{key}}}", part)
    return text
