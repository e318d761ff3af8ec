// Draws the pictures of the desk; everything on them also stands in a table.
"use strict";

const ROW = 22, LEFT = 150, TOP = 28, BOTTOM = 28;

const style = getComputedStyle(document.body);
const colour = (name) => style.getPropertyValue(name).trim();
const label = { color: colour("--soft") };

function show(place, option) {
  const chart = echarts.init(place, null, { renderer: "svg" });
  chart.setOption({ animation: false, textStyle: { fontFamily: style.fontFamily }, ...option });
  window.addEventListener("resize", () => chart.resize());
}

// A customer's history: amounts over time, and below them a row of points for each kind of what else happened.
function drawHistory(place) {
  const told = JSON.parse(place.dataset.chart);
  const rows = told.events.length * ROW;
  const time = { type: "time", min: told.from, max: told.to, axisLabel: { ...label, hideOverlap: true } };
  place.style.height = `${220 + rows + TOP + BOTTOM}px`;
  show(place, {
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
}

// What was expected beside what came, by month, in percent.
function drawCompared(place) {
  const told = JSON.parse(place.dataset.compared);
  const colours = [colour("--soft"), colour("--accent")];
  show(place, {
    legend: { top: 0, textStyle: label },
    grid: { left: 48, right: 16, top: 36, bottom: BOTTOM },
    xAxis: { type: "category", data: told.months, axisLabel: { ...label, hideOverlap: true } },
    yAxis: { type: "value", axisLabel: { ...label, formatter: "{value}%" } },
    series: told.series.map((one, place) => ({ type: "bar", name: one.name, data: one.shares, barMaxWidth: 28,
      itemStyle: { color: colours[place] } })),
  });
}

document.querySelectorAll("[data-chart]").forEach(drawHistory);
document.querySelectorAll("[data-compared]").forEach(drawCompared);
