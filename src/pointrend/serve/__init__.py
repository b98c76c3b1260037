"""`pointrend serve`: an image in, what was found out, over HTTP. Needs FastAPI, uvicorn and prometheus-client.

`api.build_service` is the web application with its routes; `backends` are what it predicts with, a model in torch or an
exported file without; `batcher` lets requests that wait share the network, `answers` turns results into JSON and PNG,
and `fetch` reads images behind addresses without being led into the network that the server stands in.
"""
