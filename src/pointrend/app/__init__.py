"""`pointrend app`: subdivision in the browser.

`uploads` reads images, `model_cache` models; `semantic_session` and `instance_session` subdivide at the sliders'
settings; `views` and `exports` turn the result into what the page shows and what can be downloaded. `service` does all
of it for many visitors, and `server` puts it on the network with FastAPI; the page itself is in `static`.
"""
