# docker build -f examples/cluster/serve-cpu.Dockerfile -t pointrend:cpu .
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# PyTorch without CUDA: a tenth of the size.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/pointrend-*.whl)[serve,parquet,remote]" && rm -r /wheels \
    && useradd --uid 1000 pointrend
USER pointrend
ENV HOME=/tmp MPLCONFIGDIR=/tmp
EXPOSE 8000
ENTRYPOINT ["pointrend", "serve"]
CMD ["photo-semantic", "--host", "0.0.0.0"]
