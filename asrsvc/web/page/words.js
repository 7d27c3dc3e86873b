// Every text of the page, in English and Chinese, and how numbers and times are written.

const ENGLISH = {
  skip: "Skip to the content",
  navigation: "Page",
  key: "Key",
  documentTitle: "Speech to text · asrsvc",
  title: "Speech, written down.",
  lead: "Give it a recording, or speak. This server alone hears it, and keeps nothing.",
  start: "A recording",
  dropTitle: "Drop an audio or video file here",
  giveTitle: "An audio or video file, or your voice",
  choose: "Choose a file",
  record: "Record",
  formats: "WAV, FLAC, MP3, M4A, Ogg, WebM, MP4 and most others.",
  paste: "You can paste a file, too.",
  stop: "Stop and transcribe",
  discard: "Discard",
  language: "Language",
  itn: "Punctuation and digits",
  itnExample: "“1:25”, not “one twenty-five”",
  samples: "No recording at hand? Try one:",
  cancel: "Cancel",
  again: "Try again",
  another: "Another recording",
  about: "About the recording",
  warnings: "What to know of the recording",
  warning: "Please note:",
  warning_audio_incomplete: "A part of the recording is missing. What is there has been transcribed.",
  unplayable: "This browser cannot play the recording’s format. The text is complete all the same.",
  textHelp: "Arrow keys move from word to word, Enter plays from there, Space plays and stops.",
  copy: "Copy text",
  copied: "Copied",
  notCopied: "The browser does not let the page copy. Select the text and copy it yourself.",
  save: "Save as",
  saveAs: "Save as {format}",
  saved: "Saved {name}",
  legendWord: "word",
  legend: "below 60% confidence",
  legendPoint: " · hover for each",
  private: "Nothing is sent anywhere but to this server.",
  letGo: "Let go to transcribe",
  keyTitle: "This server asks for a key",
  keyLead: "Whoever runs it can give you one. It stays in this tab, and is forgotten when the tab is closed.",
  keyLabel: "API key",
  keyUse: "Use this key",
  keyMissing: "Type the key first.",
  keyWrong: "The server did not accept this key.",
  keyUsed: "The key is accepted.",
  model: "Model",
  licence: "licence: {licence}",
  otherTongue: "中文",
  theme_system: "Colours: as the system has them",
  theme_light: "Colours: light",
  theme_dark: "Colours: dark",
  transcript: "Transcript",
  position: "Position in the recording",
  playFrom: "Play from {time}",
  play: "Play",
  pause: "Pause",
  ofTime: "{now} of {total}",
  sure: "{percent} confidence",
  nobody: "Nobody speaks in this recording.",
  recording: "Recording {time}",
  uploading: "Sending: {done} of {total}",
  waiting: "Waiting for a free place",
  reading: "Listening: {done} of {total}",
  readingOpen: "Listening: {done} so far",
  done: "Done. {count} transcribed in {seconds} s.",
  retrying: "The server is busy. Trying again in {seconds} s …",
  cancelled: "Cancelled.",
  words: { one: "{n} word", other: "{n} words" },
  requestId: "Request {id}",
  tookFirst: "One file at a time: {name} was taken.",
  micDenied: "The microphone may not be used",
  micDeniedDetail: "The browser asked and was told no, or does not ask any more. Allow the microphone for this page and try again.",
  micMissing: "There is no microphone",
  micMissingDetail: "The browser finds none on this device. You can choose a file instead.",
  micInsecure: "Browsers record only on a secure page",
  micInsecureDetail: "Open this page through https, or on the machine itself as 127.0.0.1. Files can be chosen here as ever.",
  micEmpty: "Nothing was recorded",
  micEmptyDetail: "The microphone gave no sound. Please try again.",
  lost: "The connection was lost",
  lostDetail: "The server went away before the end. What had come by then is below.",
  lostEarly: "The server could not be reached, or went away before it answered. Nothing was kept there.",
  silent: "The server has said nothing for ten minutes",
  notJson: "The answer was not from this service",
  notJsonDetail: "Something between this page and the server answered with status {status}.",
  failed: "That did not work",
  audio_undecodable: "This file cannot be read as sound",
  audio_truncated: "A part of the recording is missing",
  file_empty: "The file is empty",
  upload_too_large: "The recording is too large",
  audio_too_long: "The recording is too long",
  audio_too_much: "The recording is too large",
  over_capacity: "The server is busy",
  rate_limited: "Too many requests",
  queue_timeout: "The server is busy",
  not_ready: "The server is not ready",
  no_space: "The server has no space left",
  out_of_descriptors: "The server has too many files open at the moment",
  body_timeout: "The upload took too long",
  inference_failed: "The model failed on this recording",
  unauthorized: "This server asks for a key",
  forbidden: "This page may not use the server",
  noModel: "The server has no model loaded at the moment: {reason}",
  degraded: "The server works, but not as it should: {reason}",
  languages: { auto: "Detect it", zh: "Chinese (Mandarin)", en: "English", yue: "Cantonese", ja: "Japanese", ko: "Korean", nospeech: "No speech" },
  emotions: { happy: "happy", sad: "sad", angry: "angry", neutral: "neutral", fearful: "fearful", disgusted: "disgusted", surprised: "surprised" },
  events: { bgm: "music", applause: "applause", laughter: "laughter", cry: "crying", sneeze: "sneezing", breath: "breathing", cough: "coughing" },
};

const CHINESE = {
  skip: "跳到正文",
  navigation: "页面",
  key: "密钥",
  documentTitle: "语音转文字 · asrsvc",
  title: "把声音写成文字。",
  lead: "交给它一段录音，或直接说话。只有这台服务器听到，听完不留存。",
  start: "录音",
  dropTitle: "把音频或视频文件拖到这里",
  giveTitle: "音频或视频文件，或者你的声音",
  choose: "选择文件",
  record: "录音",
  formats: "支持 WAV、FLAC、MP3、M4A、Ogg、WebM、MP4 等多数格式。",
  paste: "也可以直接粘贴文件。",
  stop: "停止并转写",
  discard: "放弃",
  language: "语言",
  itn: "标点与数字",
  itnExample: "写作“11点半”，而不是“十一点半”",
  samples: "手边没有录音？试试这些：",
  cancel: "取消",
  again: "重试",
  another: "换一段录音",
  about: "关于这段录音",
  warnings: "关于录音的提示",
  warning: "请注意：",
  warning_audio_incomplete: "录音缺少一部分，已转写现有的内容。",
  unplayable: "此浏览器无法播放这种格式，文字仍然完整。",
  textHelp: "用方向键逐词移动，回车键从该词播放，空格键播放或暂停。",
  copy: "复制文字",
  copied: "已复制",
  notCopied: "浏览器不允许网页复制，请手动选中文字后复制。",
  save: "保存为",
  saveAs: "保存为 {format}",
  saved: "已保存 {name}",
  legendWord: "词语",
  legend: "置信度低于 60%",
  legendPoint: " · 指向可查看",
  private: "除这台服务器外，内容不会发往任何地方。",
  letGo: "松开即可转写",
  keyTitle: "这台服务器需要密钥",
  keyLead: "密钥由服务器的管理者提供。它只保存在此标签页中，关闭后即清除。",
  keyLabel: "API 密钥",
  keyUse: "使用此密钥",
  keyMissing: "请先输入密钥。",
  keyWrong: "服务器不接受这个密钥。",
  keyUsed: "密钥已接受。",
  model: "模型",
  licence: "许可：{licence}",
  otherTongue: "English",
  theme_system: "颜色：跟随系统",
  theme_light: "颜色：浅色",
  theme_dark: "颜色：深色",
  transcript: "转写文字",
  position: "播放位置",
  playFrom: "从 {time} 播放",
  play: "播放",
  pause: "暂停",
  ofTime: "{now}，共 {total}",
  sure: "置信度 {percent}",
  nobody: "这段录音里没有人说话。",
  recording: "正在录音 {time}",
  uploading: "正在发送：{done}，共 {total}",
  waiting: "正在等待空位",
  reading: "正在听写：{done}，共 {total}",
  readingOpen: "正在听写：已完成 {done}",
  done: "完成：{count}，用时 {seconds} 秒。",
  retrying: "服务器繁忙，{seconds} 秒后重试……",
  cancelled: "已取消。",
  words: { other: "{n} 个字词" },
  requestId: "请求编号 {id}",
  tookFirst: "一次只能处理一个文件，已选用 {name}。",
  micDenied: "不能使用麦克风",
  micDeniedDetail: "浏览器没有得到许可。请允许此页面使用麦克风，然后重试。",
  micMissing: "没有麦克风",
  micMissingDetail: "浏览器在这台设备上找不到麦克风，可以改为选择文件。",
  micInsecure: "浏览器只允许在安全的页面上录音",
  micInsecureDetail: "请通过 https 打开此页面，或在服务器本机用 127.0.0.1 打开。选择文件不受影响。",
  micEmpty: "没有录到声音",
  micEmptyDetail: "麦克风没有给出声音，请重试。",
  lost: "连接中断了",
  lostDetail: "服务器在完成之前断开了。此前收到的文字在下面。",
  lostEarly: "无法连接服务器，或它在回答之前断开了。那里没有留下任何内容。",
  silent: "服务器十分钟没有回应",
  notJson: "回答并非来自此服务",
  notJsonDetail: "页面与服务器之间的某个环节返回了状态 {status}。",
  failed: "没有成功",
  audio_undecodable: "无法从这个文件中读出声音",
  audio_truncated: "录音缺少一部分",
  file_empty: "文件是空的",
  upload_too_large: "录音太大",
  audio_too_long: "录音太长",
  audio_too_much: "录音太大",
  over_capacity: "服务器繁忙",
  rate_limited: "请求过多",
  queue_timeout: "服务器繁忙",
  not_ready: "服务器尚未就绪",
  no_space: "服务器没有剩余空间",
  out_of_descriptors: "服务器暂时打开的文件过多",
  body_timeout: "上传时间过长",
  inference_failed: "模型无法处理这段录音",
  unauthorized: "这台服务器需要密钥",
  forbidden: "此页面不能使用该服务器",
  noModel: "服务器目前没有加载模型：{reason}",
  degraded: "服务器可用，但状态不正常：{reason}",
  languages: { auto: "自动识别", zh: "普通话", en: "英语", yue: "粤语", ja: "日语", ko: "韩语", nospeech: "无人说话" },
  emotions: { happy: "高兴", sad: "悲伤", angry: "生气", neutral: "平静", fearful: "害怕", disgusted: "厌恶", surprised: "惊讶" },
  events: { bgm: "音乐", applause: "掌声", laughter: "笑声", cry: "哭声", sneeze: "喷嚏", breath: "呼吸声", cough: "咳嗽" },
};

export const TONGUES = { en: ENGLISH, zh: CHINESE };

// A text's language as browsers know it: it decides which shapes Chinese characters have.
export const TAGS = { zh: "zh-CN", yue: "zh-HK", en: "en", ja: "ja", ko: "ko" };

export let tongue = "en";

export function choose(name) {
  tongue = name in TONGUES ? name : "en";
  document.documentElement.lang = tongue === "zh" ? "zh-CN" : "en";
}

export function preferred(languages) {
  for (const language of languages) {
    const name = language.toLowerCase().split("-")[0];
    if (name in TONGUES) return name;
  }
  return "en";
}

// The text of this name; {braces} are filled in. Undefined if there is none: a server's code may be new.
export function say(name, values = {}) {
  let text = TONGUES[tongue][name];
  if (text !== undefined && typeof text === "object") {
    text = text[new Intl.PluralRules(tongue).select(values.n)] ?? text.other;
  }
  return text?.replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}

// One of a family (languages, emotions, events); what the page does not know is shown as it came.
export function call(family, name) {
  const names = TONGUES[tongue][family];
  return Object.hasOwn(names, name) ? names[name] : name;
}

// Seconds as 1:05 or 1:02:05.
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export function bytes(number) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  const power = Math.min(3, number > 0 ? Math.floor(Math.log10(number) / 3) : 0);
  const style = { style: "unit", unit: units[power], unitDisplay: power ? "short" : "long", maximumFractionDigits: power > 1 ? 1 : 0 };
  return new Intl.NumberFormat(tongue, style).format(number / 1000 ** power);
}

export function percent(share) {
  return new Intl.NumberFormat(tongue, { style: "percent" }).format(share);
}

export function number(value) {
  return new Intl.NumberFormat(tongue, { maximumFractionDigits: 1 }).format(value);
}
