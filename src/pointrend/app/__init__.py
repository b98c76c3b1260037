"""`pointrend app`: a page in the browser on which subdivision can be watched.

What is computed and shown is plain Python: `images` and `models` (what goes in), `labels` and `objects`
(subdivision at the sliders' settings), `panels` and `downloads` (what comes out), `desk` (all of it for many
visitors). `page` puts it on the screen with gradio, and `server` decides what the network may reach.
"""
