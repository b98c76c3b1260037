# docker build -f examples/cluster/gpu.Dockerfile -t pointrend:gpu .
# docker run --gpus all -v "$PWD:/data" pointrend:gpu predict /data --model /data/model.safetensors --format parquet --out /data/out
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# PyTorch's packages bring CUDA; the host brings the driver.
RUN pip install --no-cache-dir torch torchvision
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/pointrend-*.whl)[serve,parquet,remote]" \
    && useradd --uid 1000 pointrend
USER pointrend
ENV HOME=/tmp MPLCONFIGDIR=/tmp
ENTRYPOINT ["pointrend"]
