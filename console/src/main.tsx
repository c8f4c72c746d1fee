import { render } from "preact";
import { App } from "./app";
import "./styles/base.css";
import "./styles/frame.css";
import "./styles/list.css";
import "./styles/workspace.css";
import "./styles/narrow.css";

const place = document.getElementById("app");
if (place) render(<App />, place);
