// The bundler gathers style sheets; they hold no names.
declare module "*.css";
