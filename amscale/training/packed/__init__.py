"""Several trials of one shape in one process, with stacked parameters."""
