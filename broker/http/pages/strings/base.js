// Sentences that every page uses.
export const base = {
  zh: {
    "skip": "跳到主要内容", "language": "EN", "language.label": "Switch to English", "theme": "明暗主题", "development": "开发模式",
    "link.ok": "已连接", "link.cut": "已断开", "undo": "撤销", "cancel": "取消", "close": "关闭", "retry": "重试", "loading": "读取中…",
    "now": "现在", "more": "更多", "save": "保存", "chart.table": "看表格", "chart.second": "时间", "yes": "是", "no": "否",
  },
  en: {
    "skip": "Skip to the content", "language": "中文", "language.label": "切换到中文", "theme": "Theme", "development": "development mode",
    "link.ok": "Connected", "link.cut": "Cut off", "undo": "Undo", "cancel": "Cancel", "close": "Close", "retry": "Retry", "loading": "Loading…",
    "now": "now", "more": "More", "save": "Save", "chart.table": "Show as table", "chart.second": "Time", "yes": "yes", "no": "no",
  },
};
