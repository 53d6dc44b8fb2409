# vswin as a command. Not run yet: there was no engine where this was written; it was linted, and its parts are tested.
#
#   docker build --tag vswin .
#   docker build --tag vswin:gpu --build-arg EXTRA=gpu .
#   docker run --rm -v "$PWD:/workspace" -v vswin-cache:/home/vswin/.cache vswin train dataset=folder dataset.root=my/videos
#   docker run --rm --gpus all -v "$PWD:/workspace" -v vswin-cache:/home/vswin/.cache vswin:gpu train ...
#
# The mounted folder must be writable for user 1000. The second volume keeps downloaded weights.
FROM python:3.11-slim

# An extra of pyproject.toml: gpu brings the CUDA libraries as Python packages, so the image is the same; the driver is the host's.
ARG EXTRA=""

# Git, which knows the version, is not part of the image: --build-arg VERSION=0.1.0 says it.
ARG VERSION=""

# The cache folder exists, so that a volume mounted there belongs to the user.
RUN useradd --create-home --uid 1000 vswin \
    && mkdir --parents /home/vswin/.cache /workspace \
    && chown vswin:vswin /home/vswin/.cache /workspace

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE train.py evaluate.py ./
COPY vswin vswin
COPY configs configs
COPY data data
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_VSWIN="$VERSION" \
    pip install --no-cache-dir --constraint constraints.txt ".${EXTRA:+[$EXTRA]}"

# By number, so that a cluster sees that it is not root.
USER 1000
WORKDIR /workspace
ENTRYPOINT ["vswin"]
CMD ["--help"]
