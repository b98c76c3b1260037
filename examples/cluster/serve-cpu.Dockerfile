# docker build -f examples/cluster/serve-cpu.Dockerfile -t pointrend:cpu .
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# --build-arg TORCH_INDEX_URL=... names PyTorch's index of packages for CPUs (see "Get started" at pytorch.org): without it
# pip's usual packages bring CUDA along, which makes the image several times larger.
ARG TORCH_INDEX_URL=
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch torchvision
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/pointrend-*.whl)[serve,parquet,remote]" && rm -r /wheels \
    && useradd --uid 1000 pointrend
USER pointrend
ENV HOME=/tmp MPLCONFIGDIR=/tmp
EXPOSE 8000
ENTRYPOINT ["pointrend", "serve"]
CMD ["photo-semantic", "--host", "0.0.0.0"]
