import "./tracker";
export interface RowItem {
    video_id: string;
    plays: number;
    impressions: number;
    /** What the server's catalogue calls it, if it has one. */
    title?: string;
    year?: number;
    genres?: string[];
}
export interface Description {
    title: string;
    image?: string;
    href?: string;
}
export declare class TrendingRow extends HTMLElement {
    /** What a video looks like. */
    describe: (item: RowItem) => Description;
    private list;
    private pause;
    private heading;
    private source?;
    private poll;
    private waiting?;
    private isBusy;
    private isBuilt;
    connectedCallback(): void;
    disconnectedCallback(): void;
    private build;
    private take;
    private settle;
}
