# An exported model (pointrend export MODEL --to model.onnx) without torch:
# docker build -f examples/cluster/serve-cpu.Dockerfile -t pointrend:cpu .
# docker run -p 8000:8000 -v "$PWD/model.onnx:/models/model.onnx:ro" pointrend:cpu
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# What `pointrend serve model.onnx` imports; with its dependencies pip would bring torch along.
RUN pip install --no-cache-dir onnxruntime numpy pillow fastapi uvicorn prometheus-client tyro rich \
    && useradd --uid 1000 pointrend
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/pointrend-*.whl
USER pointrend
ENV HOME=/tmp
EXPOSE 8000
ENTRYPOINT ["pointrend", "serve"]
CMD ["/models/model.onnx", "--host", "0.0.0.0"]
