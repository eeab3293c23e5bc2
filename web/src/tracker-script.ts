// The tracker as a script of a page, with its options as attributes of the tag:
//
//   <script src="https://uptake.example/tracker.js" data-key="WRITE-KEY" defer></script>

import { told } from "./script";
import { start } from "./tracker";

if (told) start(told);
