"use strict";
// Draws the figures: the data names its colours, and this looks them up for light, dark and print.
(() => {
  const { palette, charts } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  const PRINT_WIDTHS = { 1: 675, 2: 330, 3: 330 };
  let printing = false;

  const colourOf = (name) => (printing && name === "surface" ? "#ffffff" : palette[name][dark.matches && !printing ? 1 : 0]);
  const withOpacity = (hex, opacity) => hex + Math.round(opacity * 255).toString(16).padStart(2, "0");

  function traceOf(trace, hidden) {
    const { colour, group, fill } = trace.meta;
    const drawn = { ...trace, visible: !hidden.has(group), line: { ...trace.line, color: colourOf(colour) } };
    if (trace.marker) {
      drawn.marker = { ...trace.marker, color: colourOf(colour), line: { ...trace.marker.line, color: colourOf(colour) } };
    }
    if (fill) {
      drawn.mode = "lines";
      drawn.line = { width: 0 };
      drawn.fillcolor = withOpacity(colourOf(colour), fill);
    }
    return drawn;
  }

  function axisOf(axis) {
    return {
      ...axis,
      title: { ...axis.title, standoff: 8, font: { size: 12, color: colourOf("muted") } },
      gridcolor: colourOf("faint"),
      linecolor: colourOf("muted"),
      tickcolor: colourOf("muted"),
      tickfont: { size: 11, color: colourOf("muted") },
      zeroline: false,
      showline: axis.visible !== false,
      ticks: "outside",
      ticklen: 4,
      automargin: true,
      tickangle: 0,
      exponentformat: "SI",
    };
  }

  function layoutOf(layout, width) {
    const { shapes, annotations, xaxis, yaxis, height } = layout;
    return {
      height,
      ...(width ? { width, autosize: false } : { autosize: true }),
      margin: { l: yaxis.visible === false ? 4 : 52, r: 14, t: 18, b: 44 },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colourOf("ink") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false,
      hovermode: "closest",
      hoverlabel: { bgcolor: colourOf("surface"), bordercolor: colourOf("muted"), font: { size: 12, color: colourOf("ink") }, align: "left" },
      dragmode: coarse.matches ? false : "zoom",
      xaxis: axisOf(xaxis),
      yaxis: axisOf(yaxis),
      shapes: shapes.map(({ colour, ...shape }) => ({ ...shape, line: { ...shape.line, color: colourOf(colour) } })),
      annotations: annotations.map(({ colour, background_opacity: opacity, ...text }) => ({
        ...text,
        font: { size: 11, color: colourOf(colour) },
        bgcolor: withOpacity(colourOf("surface"), opacity),
        borderpad: opacity ? 1 : 0,
      })),
    };
  }

  const CONFIG = {
    responsive: true,
    displayModeBar: false,
    doubleClick: "reset",
  };

  function figureOf(chart) {
    const root = document.getElementById(`figure-${chart.name}`);
    const grid = root.querySelector(".panels");
    const columns = Number(grid.className.match(/columns-(\d)/)[1]);
    const hidden = new Set();
    let shown = chart.options[0];

    function draw() {
      const cells = [...grid.children];
      shown.panels.forEach((panel, index) => {
        const cell = cells[index] || grid.appendChild(cells[0].cloneNode(false));
        if (!cell.firstElementChild) {
          cell.innerHTML = '<h3></h3><div class="plot" role="img"></div>';
        }
        cell.hidden = false;
        cell.querySelector("h3").textContent = panel.title;
        const plot = cell.querySelector(".plot");
        const width = printing ? PRINT_WIDTHS[columns] : 0;
        const traces = panel.traces.map((trace) => traceOf(trace, hidden));
        Plotly.react(plot, traces, layoutOf(panel.layout, width), CONFIG);
        if (!plot.dataset.ready) {
          plot.dataset.ready = "yes";
          plot.on("plotly_relayout", (change) => updateTicks(plot, change));
        }
      });
      cells.slice(shown.panels.length).forEach((cell) => (cell.hidden = true));
    }

    // The ticks of the data are for the whole panel; Plotly chooses those of a part that the reader zoomed to.
    function updateTicks(plot, change) {
      const update = {};
      for (const name of ["xaxis", "yaxis"]) {
        const axis = plot.layout[name];
        if (!axis.tickvals || !Object.keys(change).some((key) => key.startsWith(`${name}.range`))) continue;
        const index = [...grid.children].indexOf(plot.closest(".panel"));
        const whole = shown.panels[index].layout[name].range;
        const mode = axis.range.every((end, i) => Math.abs(end - whole[i]) < 1e-9) ? "array" : "auto";
        if (axis.tickmode !== mode) update[`${name}.tickmode`] = mode;
      }
      if (Object.keys(update).length) Plotly.relayout(plot, update);
    }

    root.querySelectorAll(".chart-legend button").forEach((button) =>
      button.addEventListener("click", () => {
        const { group } = button.dataset;
        const on = hidden.has(group);
        if (on) hidden.delete(group);
        else hidden.add(group);
        button.setAttribute("aria-pressed", String(on));
        draw();
      }),
    );
    const select = root.querySelector("select");
    if (select) {
      select.addEventListener("change", () => {
        shown = chart.options[Number(select.value)];
        draw();
      });
    }
    return draw;
  }

  const figures = charts.map(figureOf);
  const drawAll = () => figures.forEach((draw) => draw());
  dark.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => {
    printing = true;
    document.querySelectorAll("details.basis:not([open])").forEach((details) => {
      details.open = true;
      details.dataset.opened = "yes";
    });
    drawAll();
  });
  addEventListener("afterprint", () => {
    printing = false;
    document.querySelectorAll("details[data-opened]").forEach((details) => {
      details.open = false;
      delete details.dataset.opened;
    });
    drawAll();
  });
  drawAll();
})();
