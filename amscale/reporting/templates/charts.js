"use strict";
// Draws the figures: the data names colours by tone, and this looks them up for light, dark and print.
(() => {
  const { palette, charts } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  const PRINT_WIDTHS = { 1: 675, 2: 330, 3: 330 };
  let printing = false;

  const colour = (tone) => (printing && tone === "surface" ? "#ffffff" : palette[tone][dark.matches && !printing ? 1 : 0]);
  const faded = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");

  function traceOf(trace, hidden) {
    const { tone, group, fill } = trace.meta;
    const drawn = { ...trace, visible: !hidden.has(group), line: { ...trace.line, color: colour(tone) } };
    if (trace.marker) {
      drawn.marker = { ...trace.marker, color: colour(tone), line: { ...trace.marker.line, color: colour(tone) } };
    }
    if (fill) {
      drawn.mode = "lines";
      drawn.line = { width: 0 };
      drawn.fillcolor = faded(colour(tone), fill);
    }
    return drawn;
  }

  function axisOf(axis) {
    return {
      ...axis,
      title: { ...axis.title, standoff: 8, font: { size: 12, color: colour("muted") } },
      gridcolor: colour("faint"),
      linecolor: colour("muted"),
      tickcolor: colour("muted"),
      tickfont: { size: 11, color: colour("muted") },
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
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false,
      hovermode: "closest",
      hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("muted"), font: { size: 12, color: colour("ink") }, align: "left" },
      dragmode: coarse.matches ? false : "zoom",
      xaxis: axisOf(xaxis),
      yaxis: axisOf(yaxis),
      shapes: shapes.map(({ tone, ...shape }) => ({ ...shape, line: { ...shape.line, color: colour(tone) } })),
      annotations: annotations.map(({ tone, covers, ...text }) => ({
        ...text,
        font: { size: 11, color: colour(tone) },
        bgcolor: faded(colour("surface"), covers),
        borderpad: covers ? 1 : 0,
      })),
    };
  }

  const CONFIG = {
    responsive: true,
    displayModeBar: false,
    doubleClick: "reset",
  };

  function figureOf(chart) {
    const root = document.getElementById(`figure-${chart.key}`);
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
          plot.on("plotly_relayout", (change) => freeTicks(plot, change));
        }
      });
      cells.slice(shown.panels.length).forEach((cell) => (cell.hidden = true));
    }

    // The ticks are chosen for the whole panel; inside a zoom Plotly chooses.
    function freeTicks(plot, change) {
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

    root.querySelectorAll(".keys button").forEach((button) =>
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
    document.querySelectorAll("details.ground:not([open])").forEach((details) => {
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
