# The serving image: ONNX Runtime and no torch, run by a user who is not root.
#   docker build -t anchorage .                           for processors
#   docker build --build-arg EXTRAS=cuda -t anchorage .   with NVIDIA's runtime wheels
# BASE is any image that has Python 3.11 or newer as `python3`, with pip and venv.
ARG BASE=python:3.12-slim-bookworm

# What the code needs, without the code: a change of the code or of a model leaves this as it is.
FROM ${BASE} AS dependencies
ARG EXTRAS=
ENV PIP_CACHE_DIR=/var/cache/pip
WORKDIR /dependencies
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    touch README.md LICENSE MODEL_CARD.md \
    && python3 -m venv --without-pip /opt/anchorage \
    && python3 -m pip --python /opt/anchorage/bin/python install \
        --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}" \
    && python3 -m pip --python /opt/anchorage/bin/python uninstall --yes anchorage
# Of the face models only the landmarks are read, and CUDA's provider is of no use without CUDA.
RUN find /opt/anchorage -path '*/face_recognition_models/models/*' -type f \
        ! -name shape_predictor_68_face_landmarks.dat -delete \
    && case ",${EXTRAS}," in \
        *,cuda,*) ;; \
        *) find /opt/anchorage -name libonnxruntime_providers_cuda.so -delete ;; \
    esac

FROM ${BASE} AS wheel
ENV PIP_CACHE_DIR=/var/cache/pip
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m pip wheel --no-deps --wheel-dir /wheel .

FROM ${BASE}
LABEL org.opencontainers.image.title="Anchorage" \
      org.opencontainers.image.description="Shows one photographed face at any age of a life. Code: Apache-2.0. Bundled weights and face landmarks: for research only, no commercial use; see MODEL_CARD.md." \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-Weights-Research-Only"
COPY --from=dependencies /opt/anchorage /opt/anchorage
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip --python /opt/anchorage/bin/python install \
        --no-cache-dir --no-deps --no-index /wheel/*.whl
# ONNX Runtime would report its use to its maker.
ENV PATH=/opt/anchorage/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; port = os.environ.get('ANCHORAGE_PORT', '8000'); urllib.request.urlopen(f'http://127.0.0.1:{port}/readyz', timeout=4)"]
CMD ["anchorage", "serve", "--host", "0.0.0.0"]
