import "./trending-row";
