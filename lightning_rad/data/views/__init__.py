"""Views: what a recipe draws (numbers, on the host) and how it is rendered (pixels, anywhere).

A recipe draws `ViewParams` for a batch of images; `render_cpu` or `render_device` turns images
and parameters into views, equal within one grey level. The order is fixed: reduce by a whole
factor, warp, map greys, blur, add noise, cut holes.
"""
