// Draws the picture of a customer's history; everything on it also stands in a table.
"use strict";

const ROW = 22, LEFT = 150, TOP = 28, BOTTOM = 28;

function draw(place) {
  const told = JSON.parse(place.dataset.chart);
  const style = getComputedStyle(document.body);
  const colour = (name) => style.getPropertyValue(name).trim();
  const rows = told.events.length * ROW;
  const label = { color: colour("--soft") };
  const time = { type: "time", min: told.from, max: told.to, axisLabel: { ...label, hideOverlap: true } };
  place.style.height = `${220 + rows + TOP + BOTTOM}px`;
  const chart = echarts.init(place, null, { renderer: "svg" });
  chart.setOption({
    animation: false, textStyle: { fontFamily: style.fontFamily },
    grid: [{ left: LEFT, right: 16, top: TOP, bottom: rows + BOTTOM + 16 },
      { left: LEFT, right: 16, bottom: BOTTOM, height: rows }],
    xAxis: [{ ...time, gridIndex: 0, axisLabel: { show: false }, axisTick: { show: false } }, { ...time, gridIndex: 1 }],
    yAxis: [{ type: "value", gridIndex: 0, name: told.currency, nameTextStyle: label, axisLabel: label },
      { type: "category", gridIndex: 1, inverse: true, data: told.events.map((event) => event.name),
        axisTick: { show: false }, axisLabel: { ...label, width: LEFT - 12, overflow: "truncate" } }],
    series: [
      { type: "bar", data: told.purchases, barMinWidth: 2, barMaxWidth: 5, itemStyle: { color: colour("--accent") } },
      ...told.events.map((event) => ({ type: "scatter", xAxisIndex: 1, yAxisIndex: 1, symbolSize: 7,
        itemStyle: { color: colour("--fair") }, data: event.days.map((day) => [day, event.name]) })),
    ],
  });
  window.addEventListener("resize", () => chart.resize());
}

document.querySelectorAll("[data-chart]").forEach(draw);
