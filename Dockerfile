# Two images, by --target: trainer (`arlow`) and operator (`arlow-operator`, without torch).
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# The requirements of an extra, so that the layer of the dependencies outlives changes of the code.
RUN printf '%s\n' \
      'import sys, tomllib' \
      'project = tomllib.load(open("pyproject.toml", "rb"))["project"]' \
      'print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")' \
      > requirements.py

FROM base AS trainer
# DeepSpeed is released as source and needs torch to build, hence the order and no isolation.
RUN python requirements.py trainer > requirements.txt \
 && pip install -c constraints.txt setuptools wheel \
 && grep -E '^(torch|numpy|ninja|psutil|pydantic)' requirements.txt > first.txt \
 && pip install -c constraints.txt -r first.txt \
 && pip install -c constraints.txt einops hjson msgpack packaging py-cpuinfo tqdm \
 && pip install -c constraints.txt --no-build-isolation -r requirements.txt
COPY README.md LICENSE ./
COPY trainer trainer
COPY operator operator
RUN pip install --no-deps --no-build-isolation . && python -m compileall -q /src/trainer > /dev/null \
 && rm -rf /src
WORKDIR /home/arlow
USER 65532:65532
ENV HOME=/home/arlow USER=arlow
ENTRYPOINT ["arlow"]

FROM base AS operator
RUN python requirements.py operator > requirements.txt \
 && pip install -c constraints.txt setuptools wheel \
 && pip install -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY trainer trainer
COPY operator operator
RUN pip install --no-deps --no-build-isolation . && rm -rf /src
WORKDIR /home/arlow
USER 65532:65532
ENV HOME=/home/arlow USER=arlow
ENTRYPOINT ["arlow-operator"]
